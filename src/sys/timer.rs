//! Waiting for less than the milliseconds that the asynchronous runtime counts in.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use super::readable;

/// A timer of the kernel's (timerfd_create(2)) that the current runtime watches.
pub struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// Makes a timer.
    ///
    /// # Errors
    /// What timerfd_create(2) or epoll_ctl(2) say.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(readable::watch(timer)?))
    }

    /// Waits for `pause`, to the kernel's precision.
    ///
    /// # Errors
    /// What timerfd_settime(2) or epoll_wait(2) say.
    pub async fn sleep(&mut self, pause: Duration) -> io::Result<()> {
        let once = Itimerspec {
            it_interval: Timespec::default(),
            // Zero would disarm it.
            it_value: Timespec::try_from(pause.max(Duration::from_nanos(1)))
                .map_err(io::Error::other)?,
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            match rustix::io::read(self.0.get_ref(), &mut [0; 8]) {
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                // Read, so that it can be set again.
                Ok(_) => {
                    ready.clear_ready();
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[tokio::test(flavor = "current_thread")]
    async fn a_timer_waits_as_long_as_it_is_told_each_time() {
        let mut timer = Timer::new().expect("timer");
        for micros in [300, 100, 2000] {
            let pause = Duration::from_micros(micros);
            let start = Instant::now();
            timer.sleep(pause).await.expect("sleep");
            assert!(start.elapsed() >= pause);
        }
    }
}
