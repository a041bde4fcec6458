//! Why no specification could be made for a container.

use std::io;

/// Why a container of a manifest cannot be run from its image on this machine.
/// Where kubelet reports the same, the text is kubelet's.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The object has no `spec`.
    #[error("the pod has no spec")]
    NoPodSpec,

    /// A container whose name cannot name its cgroup.
    #[error("container name \"{0}\" must be a single plain name")]
    ContainerName(String),

    /// Neither manifest nor image say what to run.
    #[error("no command specified")]
    NoCommand,

    /// Text with a zero byte, which the kernel would cut short.
    #[error("{field} contains a NUL character")]
    Nul {
        /// The field that holds it.
        field: &'static str,
    },

    /// `runAsNonRoot` with `runAsUser: 0`.
    #[error(
        "container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})"
    )]
    RunAsUserIsRoot {
        /// `name_namespace(uid)` of the pod.
        pod: String,
        /// Name of the container.
        container: String,
    },

    /// `runAsNonRoot` with an image that runs as root.
    #[error(
        "container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})"
    )]
    ImageIsRoot {
        /// `name_namespace(uid)` of the pod.
        pod: String,
        /// Name of the container.
        container: String,
    },

    /// `runAsNonRoot` with an image whose user is a name.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: \"{pod}\", container: {container})"
    )]
    ImageUserNotNumeric {
        /// The image's user.
        user: String,
        /// `name_namespace(uid)` of the pod.
        pod: String,
        /// Name of the container.
        container: String,
    },

    /// The image's `User` has more than two parts.
    #[error("invalid user \"{0}\" in the image: expected user or user:group")]
    ImageUser(String),

    /// A number that is no user or group id.
    #[error("{field}: {value} is not a valid id: must be between 0 and 2147483647")]
    Id {
        /// The field that holds it.
        field: &'static str,
        /// The number as given.
        value: i64,
    },

    /// The image's `/etc/passwd` does not have the user.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),

    /// The image's `/etc/group` does not have the group.
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),

    /// `/etc/passwd` or `/etc/group` of the image could not be read.
    #[error("cannot read /{path} in the image: {source}")]
    AccountFile {
        /// The file, relative to the container's root.
        path: &'static str,
        /// What went wrong.
        source: io::Error,
    },

    /// A capability that Linux does not have.
    #[error("unknown capability \"{0}\"")]
    UnknownCapability(String),

    /// A capability that cannot be given because orlop does not have it.
    #[error(
        "capability \"{0}\" cannot be added: orlop itself does not have it (CapBnd in /proc/self/status)"
    )]
    MissingCapability(String),

    /// A seccomp profile of this machine that is not there, or is none.
    #[error("cannot load seccomp profile \"{path}\": {source}")]
    SeccompProfile {
        /// The file.
        path: String,
        /// What went wrong.
        source: io::Error,
    },

    /// `appArmorProfile` on a machine that cannot enforce any.
    #[error("Cannot enforce AppArmor: AppArmor is not enabled on the host")]
    NoAppArmor,

    /// `seLinuxOptions` on a machine where they mean something.
    #[error(
        "seLinuxOptions are not supported by this version of orlop on a machine with SELinux: leave them out"
    )]
    SeLinux,

    /// A user or group beyond those that a pod with users of its own has.
    #[error(
        "user or group {0} is not among the pod's own: with hostUsers: false they are 0 to 65535"
    )]
    NotAmongUsers(u32),

    /// `valueFrom.fieldRef` with a path that has no value in the environment.
    #[error("unsupported fieldPath: {0}")]
    FieldPath(String),

    /// `valueFrom.resourceFieldRef` with an unknown resource.
    #[error("unsupported container resource : {0}")]
    ResourceField(String),

    /// `valueFrom.resourceFieldRef` with an unknown container.
    #[error("container {0} not found")]
    UnknownContainer(String),

    /// Environment from an object that is not there.
    #[error("{kind} \"{name}\" not found")]
    MissingObject {
        /// `configmap`, `secret` or `file`.
        kind: &'static str,
        /// Name of the object.
        name: String,
    },

    /// A `volumeMount` whose volume the pod does not declare.
    #[error("volume mount \"{path}\": the pod has no volume \"{volume}\"")]
    UnknownVolume {
        /// Name of the volume.
        volume: String,
        /// `mountPath` as given.
        path: String,
    },

    /// A `volumeMount` that cannot be made.
    #[error("volume mount \"{path}\": {reason}")]
    MountPath {
        /// `mountPath` as given.
        path: String,
        /// Why not.
        reason: &'static str,
    },

    /// A `subPathExpr` with variables that the container does not have, or that
    /// are empty.
    #[error("missing value for {0}")]
    SubPathVariables(String),

    /// A `subPathExpr` whose variables make an absolute path of it.
    #[error("error SubPath `{0}` must not be an absolute path")]
    SubPathAbsolute(String),

    /// A `subPathExpr` whose variables let it climb.
    #[error("unable to provision SubPath `{0}`: must not contain '..'")]
    SubPathClimbs(String),

    /// `volumeDevices`.
    #[error("container \"{0}\": volumeDevices are not supported; use volumeMounts")]
    VolumeDevices(String),

    /// A host name of which nothing is left.
    #[error("hostname for pod \"{0}\" is empty after it was shortened to 63 characters")]
    Hostname(String),

    /// `setHostnameAsFQDN` with a name the kernel does not take.
    #[error(
        "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long (64 characters is the max, {} characters requested)",
        fqdn.len()
    )]
    Fqdn {
        /// The full name.
        fqdn: String,
    },
}
