//! Loading manifests: files, directories and standard input become objects
//! that are complete and valid, or one sentence says why not.
//!
//! - A source has at most 4 MiB, 10,000 documents and 250,000 values, nested
//!   at most 64 deep; aliases may stand for 100,000 values and 16 MiB of text.
//! - Every document of every source is checked before anything is returned.
//! - Decoding is strict: unknown fields, duplicate keys and fields that this
//!   version cannot honour ([`super::supported`]) are errors.
//! - Objects come with the API's defaults filled in ([`super::defaults`]).

use super::decode::{child, decode, describe};
use super::error::{Place, Problem, quote};
use super::kind::Kind;
use super::kinds::{Route, route};
use super::source::{Text, inputs, read};
use super::{config, defaults, persistence, strict, supported, validate, yaml};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

pub use super::error::ManifestError;
pub use super::source::LARGEST;

/// Where manifests come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard input, written `-`.
    Stdin,
    /// A file, or a directory that stands for its `*.yaml`, `*.yml` and
    /// `*.json` files in the order of their names. Relative to the working
    /// directory.
    Path(PathBuf),
}

impl From<&OsStr> for Source {
    fn from(argument: &OsStr) -> Self {
        match argument == "-" {
            true => Self::Stdin,
            false => Self::Path(argument.into()),
        }
    }
}

/// An object and where it was found.
#[derive(Clone, Debug)]
pub struct Document {
    /// The file's name as sentences show it: quoted, or `standard input`.
    pub source: Arc<str>,
    /// The document's number in its source, from 1; documents without content
    /// don't count. The items of a `List` share theirs.
    pub index: usize,
    /// The object, complete and valid.
    pub object: Object,
}

/// The kinds of object that manifests can hold.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Object {
    /// A `v1` `Pod`: `metadata.name`, `metadata.namespace` and `spec` are set,
    /// `status` and the deletion's marks are not.
    Pod(Box<Pod>),
    /// A `v1` `ConfigMap`.
    ConfigMap(Box<ConfigMap>),
    /// A `v1` `Secret`, its `stringData` in `data`.
    Secret(Box<Secret>),
    /// A `v1` `PersistentVolume`, without a namespace.
    PersistentVolume(Box<PersistentVolume>),
    /// A `v1` `PersistentVolumeClaim`.
    PersistentVolumeClaim(Box<PersistentVolumeClaim>),
    /// A `storage.k8s.io/v1` `StorageClass`, without a namespace.
    StorageClass(Box<StorageClass>),
}

impl From<Pod> for Object {
    fn from(pod: Pod) -> Self {
        Self::Pod(Box::new(pod))
    }
}

impl From<ConfigMap> for Object {
    fn from(map: ConfigMap) -> Self {
        Self::ConfigMap(Box::new(map))
    }
}

impl From<Secret> for Object {
    fn from(secret: Secret) -> Self {
        Self::Secret(Box::new(secret))
    }
}

impl From<PersistentVolume> for Object {
    fn from(volume: PersistentVolume) -> Self {
        Self::PersistentVolume(Box::new(volume))
    }
}

impl From<PersistentVolumeClaim> for Object {
    fn from(claim: PersistentVolumeClaim) -> Self {
        Self::PersistentVolumeClaim(Box::new(claim))
    }
}

impl From<StorageClass> for Object {
    fn from(class: StorageClass) -> Self {
        Self::StorageClass(Box::new(class))
    }
}

impl Object {
    /// The kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Pod(_) => Kind::Pod,
            Self::ConfigMap(_) => Kind::ConfigMap,
            Self::Secret(_) => Kind::Secret,
            Self::PersistentVolume(_) => Kind::PersistentVolume,
            Self::PersistentVolumeClaim(_) => Kind::PersistentVolumeClaim,
            Self::StorageClass(_) => Kind::StorageClass,
        }
    }

    /// The metadata that every kind has.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Pod(pod) => &pod.metadata,
            Self::ConfigMap(map) => &map.metadata,
            Self::Secret(secret) => &secret.metadata,
            Self::PersistentVolume(volume) => &volume.metadata,
            Self::PersistentVolumeClaim(claim) => &claim.metadata,
            Self::StorageClass(class) => &class.metadata,
        }
    }

    /// The metadata, to be changed.
    pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Pod(pod) => &mut pod.metadata,
            Self::ConfigMap(map) => &mut map.metadata,
            Self::Secret(secret) => &mut secret.metadata,
            Self::PersistentVolume(volume) => &mut volume.metadata,
            Self::PersistentVolumeClaim(claim) => &mut claim.metadata,
            Self::StorageClass(class) => &mut class.metadata,
        }
    }

    /// The object as a value of JSON, with its kind and version.
    ///
    /// # Errors
    /// The serializer's.
    pub fn to_value(&self) -> serde_json::Result<Value> {
        match self {
            Self::Pod(pod) => serde_json::to_value(pod),
            Self::ConfigMap(map) => serde_json::to_value(map),
            Self::Secret(secret) => serde_json::to_value(secret),
            Self::PersistentVolume(volume) => serde_json::to_value(volume),
            Self::PersistentVolumeClaim(claim) => serde_json::to_value(claim),
            Self::StorageClass(class) => serde_json::to_value(class),
        }
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    /// The object's namespace.
    pub fn namespace(&self) -> &str {
        self.metadata().namespace.as_deref().unwrap_or_default()
    }
}

/// Loads all objects of `sources`, in their order; objects that name no
/// namespace are in `default`.
///
/// # Errors
/// The first thing that is wrong, as one sentence; nothing is returned then.
pub fn load(sources: &[Source]) -> Result<Vec<Document>, ManifestError> {
    load_into(sources, None)
}

/// [`load`] for a command that was given a `namespace`: objects that name none
/// are in it.
///
/// # Errors
/// As [`load`]; also when an object names another namespace.
pub fn load_into(
    sources: &[Source],
    namespace: Option<&str>,
) -> Result<Vec<Document>, ManifestError> {
    load_from(sources, namespace, &mut std::io::stdin())
}

fn load_from(
    sources: &[Source],
    namespace: Option<&str>,
    stdin: &mut dyn Read,
) -> Result<Vec<Document>, ManifestError> {
    let mut loader = Loader {
        namespace,
        documents: Vec::new(),
        places: HashMap::new(),
    };
    let mut last = None;
    for source in sources {
        for input in inputs(source)? {
            let text = read(input, stdin)?;
            let before = loader.documents.len();
            loader.add_text(&text)?;
            if text.named && loader.documents.len() == before {
                return Err(ManifestError::Empty { file: text.file });
            }
            last = Some(text.file);
        }
    }
    match (loader.documents.is_empty(), last) {
        (true, Some(file)) => Err(ManifestError::Empty { file }),
        _ => Ok(loader.documents),
    }
}

/// Checks a pod that did not come from a manifest's file as one that did: strictly
/// decoded, with the defaults filled in, supported and valid.
///
/// # Errors
/// The first thing that is wrong.
pub fn checked(value: &Value) -> Result<Object, Problem> {
    let loader = Loader {
        namespace: None,
        documents: Vec::new(),
        places: HashMap::new(),
    };
    match route_of(value)? {
        Route::List => Err(Problem::KindNotSupported {
            kind: "List".to_owned(),
        }),
        route => loader.object(route, value),
    }
}

struct Loader<'n> {
    namespace: Option<&'n str>,
    documents: Vec<Document>,
    /// Where each object stands, by kind, namespace and name.
    places: HashMap<(Kind, String, String), Place>,
}

impl Loader<'_> {
    fn add_text(&mut self, text: &Text) -> Result<(), ManifestError> {
        for document in yaml::parse(text)? {
            self.add_value(&document.value, document.place)?;
        }
        Ok(())
    }

    fn add_value(&mut self, value: &Value, place: Place) -> Result<(), ManifestError> {
        match route_of(value).map_err(|problem| problem.at(&place))? {
            Route::List => self.add_items(value, &place),
            route => {
                let object = self.object(route, value);
                self.add_object(object.map_err(|problem| problem.at(&place))?, place)
            }
        }
    }

    /// One object of a kind that is stored.
    fn object(&self, route: Route, value: &Value) -> Result<Object, Problem> {
        let settle = |metadata: &mut ObjectMeta| self.settle(metadata);
        Ok(match route {
            Route::Pod => self.pod(value)?.into(),
            Route::ConfigMap => config::config_map(value, settle)?.into(),
            Route::Secret => config::secret(value, settle)?.into(),
            Route::PersistentVolume => persistence::volume(value)?.into(),
            Route::PersistentVolumeClaim => persistence::claim(value, settle)?.into(),
            Route::StorageClass => persistence::class(value)?.into(),
            Route::List => unreachable!("its items are objects"),
        })
    }

    fn add_items(&mut self, list: &Value, place: &Place) -> Result<(), ManifestError> {
        let items = items_of(list).map_err(|problem| problem.at(place))?;
        for (i, item) in items.iter().enumerate() {
            let mut place = place.clone();
            place.item = format!("{}[{i}]", child(&place.item, "items"));
            self.add_value(item, place)?;
        }
        Ok(())
    }

    fn pod(&self, value: &Value) -> Result<Pod, Problem> {
        strict::refuse_nul(value)?;
        let mut pod: Pod = decode(value)?;
        let understood = serde_json::to_value(&pod)
            .map_err(|error| Problem::Syntax(quote(&error.to_string())))?;
        strict::check("", value, &understood)?;
        supported::check(value, &pod)?;
        pod.status = None;
        self.settle(&mut pod.metadata)?;
        defaults::pod(&mut pod);
        let findings = validate::pod(&pod);
        match findings.is_empty() {
            true => Ok(pod),
            false => Err(Problem::Invalid {
                kind: "Pod",
                name: pod.metadata.name.unwrap_or_default(),
                findings,
            }),
        }
    }

    /// Puts the object into its namespace and takes away what only a store
    /// may say of it.
    fn settle(&self, metadata: &mut ObjectMeta) -> Result<(), Problem> {
        metadata.deletion_timestamp = None;
        metadata.deletion_grace_period_seconds = None;
        let Some(asked) = self.namespace else {
            return Ok(());
        };
        match metadata.namespace.as_deref() {
            None | Some("") => metadata.namespace = Some(asked.to_owned()),
            Some(found) if found == asked => {}
            Some(found) => {
                return Err(Problem::Namespace {
                    found: found.to_owned(),
                    asked: asked.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn add_object(&mut self, object: Object, place: Place) -> Result<(), ManifestError> {
        let (kind, namespace, name) = (object.kind(), object.namespace(), object.name());
        let key = (kind, namespace.to_owned(), name.to_owned());
        if let Some(first) = self.places.get(&key) {
            let problem = Problem::Duplicate {
                object: format!("{kind} {}", quote(&format!("{namespace}/{name}"))),
                first: first.clone(),
            };
            return Err(problem.at(&place));
        }
        self.documents.push(Document {
            source: Arc::clone(&place.file),
            index: place.document,
            object,
        });
        self.places.insert(key, place);
        Ok(())
    }
}

fn route_of(value: &Value) -> Result<Route, Problem> {
    let Value::Object(fields) = value else {
        return Err(Problem::NotAnObject(describe(value)));
    };
    let field = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(other) => Err(Problem::Type {
            field: name.to_owned(),
            expected: "a string".to_owned(),
            found: describe(other),
        }),
    };
    match (field("apiVersion")?, field("kind")?) {
        ("", "") => Err(Problem::NotSet("apiVersion and kind")),
        ("", _) => Err(Problem::NotSet("apiVersion")),
        (_, "") => Err(Problem::NotSet("kind")),
        (version, kind) => route(version, kind),
    }
}

fn items_of(list: &Value) -> Result<&[Value], Problem> {
    let known = ["apiVersion", "items", "kind", "metadata"];
    let fields = list.as_object().into_iter().flat_map(|list| list.keys());
    let unknown: Vec<_> = fields
        .filter(|field| !known.contains(&field.as_str()))
        .map(|field| format!("unknown field \"{}\"", child("", field)))
        .collect();
    if !unknown.is_empty() {
        return Err(Problem::Strict(unknown));
    }
    match list.get("items") {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(other) => Err(Problem::Type {
            field: "items".to_owned(),
            expected: "a list".to_owned(),
            found: describe(other),
        }),
    }
}

#[cfg(test)]
mod tests;
