//! The log file that callers of an OCI runtime read its errors from.
//!
//! In JSON it is a stream of objects with `level`, `msg` and `time`; a caller
//! takes the last one with level `error`. One broken line would lose the
//! message, so each is written by a single call, in append mode.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use jiff::Timestamp;

use super::LogFormat;

/// Where messages go.
#[derive(Debug)]
pub(super) struct Log {
    file: Option<PathBuf>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    pub(super) fn new(file: Option<PathBuf>, format: LogFormat, debug: bool) -> Self {
        Self {
            file,
            format,
            debug,
        }
    }

    pub(super) fn error(&self, message: &str) {
        eprintln!("orlop-oci: {message}");
        self.append("error", message);
    }

    pub(super) fn debug(&self, message: &str) {
        if self.debug {
            self.append("debug", message);
        }
    }

    fn append(&self, level: &str, message: &str) {
        let Some(path) = &self.file else { return };
        let line = line(self.format, level, message, Timestamp::now());
        let written = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            eprintln!("orlop-oci: cannot write the log file {path:?}: {error}");
        }
    }
}

fn line(format: LogFormat, level: &str, message: &str, time: Timestamp) -> String {
    match format {
        LogFormat::Json => {
            let object = serde_json::json!({"level": level, "msg": message, "time": time});
            format!("{object}\n")
        }
        LogFormat::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_quotes_and_newlines_stays_one_line() {
        let message = "exec: \"a\nb\": no such file or directory";
        for format in [LogFormat::Json, LogFormat::Text] {
            let line = line(format, "error", message, Timestamp::UNIX_EPOCH);
            assert_eq!(line.lines().count(), 1, "{line}");
        }
        let json = line(LogFormat::Json, "error", message, Timestamp::UNIX_EPOCH);
        let object: serde_json::Value = serde_json::from_str(&json).expect("json");
        assert_eq!(object["msg"], message);
        assert_eq!(object["level"], "error");
        assert_eq!(object["time"], "1970-01-01T00:00:00Z");
    }
}
