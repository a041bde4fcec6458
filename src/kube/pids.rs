//! How many processes a pod may have. On a node that is a setting of kubelet
//! (`podPidsLimit`, <https://kubernetes.io/docs/concepts/policy/pid-limiting/>) and no
//! field of the manifest; here each pod may have a limit of its own.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The annotation with the number.
pub const ANNOTATION: &str = "orlop.dev/pids-limit";

/// The most that Linux has (`PID_MAX_LIMIT`).
const MOST: i64 = 1 << 22;

/// The most processes and threads that all containers of a pod may have together;
/// nothing where that is not limited.
///
/// # Errors
/// What is wrong with the annotation's value.
pub fn limit(metadata: &ObjectMeta) -> Result<Option<i64>, String> {
    let annotations = metadata.annotations.as_ref();
    let Some(text) = annotations.and_then(|annotations| annotations.get(ANNOTATION)) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(number @ 1..=MOST) => Ok(Some(number)),
        _ => Err(format!(
            "must be a whole number of processes from 1 to {MOST}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Result<Option<i64>, String> {
        limit(&ObjectMeta {
            annotations: Some([(ANNOTATION.to_owned(), value.to_owned())].into()),
            ..ObjectMeta::default()
        })
    }

    #[test]
    fn a_limit_is_a_number_of_processes() {
        assert_eq!(limit(&ObjectMeta::default()), Ok(None));
        assert_eq!(of("100"), Ok(Some(100)));
        assert_eq!(of("4194304"), Ok(Some(4_194_304)));
        for wrong in ["", "0", "-1", "1.5", "1k", "4194305", " 1"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
