//! Which part of a volume a container gets: `subPath`, and `subPathExpr` with the
//! container's variables put in
//! (<https://kubernetes.io/docs/concepts/storage/volumes/#using-subpath>).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use super::{Sandbox, SpecError, env, pod_spec};
use crate::kube::expand::expand;

/// A volume mount that shows a part of its volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubPath<'a> {
    /// Its place in the container's list of volume mounts.
    pub index: usize,
    /// The volume's name.
    pub volume: &'a str,
    /// Where the part is, relative to the volume's root: neither absolute nor
    /// with a `..` in it.
    pub path: String,
}

/// Whether `mount` asks for a part of its volume.
pub fn is_asked_for(mount: &VolumeMount) -> bool {
    let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    given(&mount.sub_path) || given(&mount.sub_path_expr)
}

/// The volume mounts of `container` that show a part of their volume.
///
/// # Errors
/// kubelet's sentences about what the variables made of a `subPathExpr`, and
/// those about the variables themselves.
pub fn all<'a>(
    pod: &Pod,
    container: &'a Container,
    sandbox: &Sandbox,
) -> Result<Vec<SubPath<'a>>, SpecError> {
    let mounts = || {
        let mounts = container.volume_mounts.iter().flatten().enumerate();
        mounts.filter(|(_, mount)| is_asked_for(mount))
    };
    if mounts().next().is_none() {
        return Ok(Vec::new());
    }
    let variables = env::given(pod, pod_spec(pod)?, container, sandbox)?;
    mounts()
        .map(|(index, mount)| {
            let path = match mount.sub_path_expr.as_deref() {
                Some(expression) if !expression.is_empty() => expanded(expression, &variables)?,
                _ => mount.sub_path.clone().unwrap_or_default(),
            };
            Ok(SubPath {
                index,
                volume: &mount.name,
                path: checked(path)?,
            })
        })
        .collect()
}

fn expanded(expression: &str, variables: &env::Given) -> Result<String, SpecError> {
    let missing = std::cell::RefCell::new(BTreeSet::new());
    let value = |name: &str| match variables.values.get(name) {
        Some(value) if !value.is_empty() => Some(value.as_str()),
        _ => {
            missing.borrow_mut().insert(name.to_owned());
            None
        }
    };
    let path = expand(expression, value);
    let missing: Vec<String> = missing.into_inner().into_iter().collect();
    match missing.is_empty() {
        true => Ok(path),
        false => Err(SpecError::SubPathVariables(missing.join(", "))),
    }
}

fn checked(path: String) -> Result<String, SpecError> {
    if path.starts_with('/') {
        return Err(SpecError::SubPathAbsolute(path));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(SpecError::SubPathClimbs(path));
    }
    if path.contains('\0') {
        return Err(SpecError::Nul { field: "subPath" });
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::spec::fixture::{first, pod, sandbox};
    use serde_json::{Value, json};

    fn paths(mounts: Value) -> Result<Vec<(usize, String)>, String> {
        let pod = pod(json!({
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{
                "name": "c",
                "env": [
                    {"name": "EMPTY", "value": ""},
                    {"name": "UP", "value": ".."},
                    {"name": "ROOT", "value": "/etc"},
                    {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "DEEP", "value": "$(POD)/logs"},
                ],
                "volumeMounts": mounts,
            }],
        }));
        let all = all(&pod, first(&pod), &sandbox()).map_err(|error| error.to_string())?;
        Ok(all.into_iter().map(|one| (one.index, one.path)).collect())
    }

    fn path_of(expression: &str) -> Result<String, String> {
        let mount = json!([{"name": "v", "mountPath": "/v", "subPathExpr": expression}]);
        Ok(paths(mount)?.remove(0).1)
    }

    #[test]
    fn only_mounts_of_a_part_are_told_each_with_its_place_in_the_list() {
        let mounts = json!([
            {"name": "v", "mountPath": "/a"},
            {"name": "v", "mountPath": "/b", "subPath": "b/$(POD)"},
            {"name": "v", "mountPath": "/c", "subPath": "", "subPathExpr": ""},
            {"name": "v", "mountPath": "/d", "subPathExpr": "$(POD)"},
        ]);
        let wanted = vec![(1, "b/$(POD)".to_owned()), (3, "web".to_owned())];
        assert_eq!(paths(mounts), Ok(wanted));
    }

    #[test]
    fn an_expression_is_expanded_with_the_containers_own_variables() {
        assert_eq!(path_of("$(DEEP)/$$(POD)"), Ok("web/logs/$(POD)".to_owned()));
        assert_eq!(
            path_of("$(ZERO)/$(EMPTY)/$(A)/$(ZERO)"),
            Err("missing value for A, EMPTY, ZERO".to_owned())
        );
        assert_eq!(
            path_of("$(ROOT)/passwd"),
            Err("error SubPath `/etc/passwd` must not be an absolute path".to_owned())
        );
        assert_eq!(
            path_of("a/$(UP)/b"),
            Err("unable to provision SubPath `a/../b`: must not contain '..'".to_owned())
        );
    }
}
