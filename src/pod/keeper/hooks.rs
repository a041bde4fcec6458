//! Lifecycle hooks: `postStart` and `preStop`
//! (<https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/>).

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use super::Keeper;
use super::check::{Reach, command, http};
use crate::storage::events::EventType;

/// The two hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    PostStart,
    PreStop,
}

/// What a hook does.
pub(super) enum Action {
    Exec(Vec<String>),
    Get(Result<http::Request, String>),
    Sleep(Duration),
    /// Kubernetes takes a `tcpSocket` hook, and then never runs it.
    Unknown,
}

impl Action {
    /// What `hook` of `container` asks for.
    pub(super) fn of(hook: &LifecycleHandler, container: &Container) -> Self {
        if let Some(exec) = &hook.exec {
            Self::Exec(exec.command.clone().unwrap_or_default())
        } else if let Some(get) = &hook.http_get {
            Self::Get(http::Request::of(get, container))
        } else if let Some(sleep) = &hook.sleep {
            Self::Sleep(Duration::from_secs(sleep.seconds.try_into().unwrap_or(0)))
        } else {
            Self::Unknown
        }
    }
}

/// Runs a hook, for `limit` at most. What a web server answers does not matter.
///
/// # Errors
/// Why the hook failed.
pub(super) async fn run(
    action: Action,
    reach: Reach,
    limit: Option<Duration>,
) -> Result<(), String> {
    let work = async {
        match action {
            Action::Exec(command) => match command::run(reach, command, limit).await {
                Ok(ended) if ended.code == 0 => Ok(()),
                Ok(ended) => Err(ended.output),
                Err(error) => Err(error.to_string()),
            },
            Action::Get(request) => http::get(&reach, &request?).await.map(|_| ()),
            Action::Sleep(time) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Action::Unknown => Err("invalid handler".to_owned()),
        }
    };
    match limit {
        None => work.await,
        Some(limit) => tokio::time::timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err("the grace period is over".to_owned())),
    }
}

impl Keeper {
    /// Begins the `postStart` hook of a container that runs, if it has one.
    pub(super) fn post_start(&self, index: usize) {
        let hook = self
            .specification(index)
            .and_then(|one| one.lifecycle.as_ref()?.post_start.as_ref());
        if let Some(hook) = hook {
            self.run_hook(index, Hook::PostStart, hook, None);
        }
    }

    /// A hook of the start `id` of a container is over.
    pub(super) fn hooked(&mut self, index: usize, id: &str, which: Hook, failed: bool) {
        let container = &mut self.containers[index];
        let path = container.field_path();
        let Some(running) = container.running(id) else {
            return;
        };
        match (which, failed) {
            (Hook::PostStart, false) => {
                running.hook_pending = false;
                self.begin_probes(index);
            }
            (Hook::PostStart, true) => {
                let message = "PostStartHook failed".to_owned();
                self.happened(EventType::Warning, &path, "FailedPostStartHook", message);
                self.end(index, self.grace(), "FailedPostStartHook".to_owned(), false);
            }
            (Hook::PreStop, failed) => {
                if failed {
                    let message = "PreStopHook failed".to_owned();
                    self.happened(EventType::Warning, &path, "FailedPreStopHook", message);
                }
                self.pre_stopped(index, id);
            }
        }
    }
}
