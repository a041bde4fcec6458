//! The last step of a pull: what was staged becomes an image of the store.

use jiff::Timestamp;

use super::PullError;
use super::plan::Plan;
use super::staging::Staging;
use crate::image::import::{Staged, publish, stage_blob};
use crate::image::index::Index;
use crate::image::store::ImageStore;
use crate::image::{Image, ImageConfig, ImageError, Layer, digest};

/// Whether an image of the store has a layer.
pub(super) fn has(store: &ImageStore, diff_id: &str) -> Result<bool, PullError> {
    let index = Index::load(&store.fd, &store.dir)?;
    Ok(known(store, &index, diff_id)?.is_some())
}

fn known(store: &ImageStore, index: &Index, diff_id: &str) -> Result<Option<Layer>, ImageError> {
    let name = digest::hex(diff_id).unwrap_or_default();
    if store.open_layer(name)?.is_none() {
        return Ok(None);
    }
    let mut layers = index.images.iter().flat_map(|image| &image.layers);
    Ok(layers.find(|layer| layer.diff_id == diff_id).cloned())
}

/// Makes the image known under a name, all or nothing. Gives none when a layer
/// is neither staged nor in the store any more.
pub(super) fn commit(
    store: &ImageStore,
    staging: &Staging,
    plan: &Plan,
    name: &str,
) -> Result<Option<Image>, PullError> {
    let config = ImageConfig::new(&plan.configuration).map_err(|reason| PullError::Damaged {
        what: format!("the configuration of {name}"),
        reason,
    })?;
    let writing = store.write()?;
    let _moving = staging.moving()?;
    let index = Index::load(&store.fd, &store.dir)?;
    store.sweep(&index, &writing)?;
    let mut layers: Vec<Layer> = Vec::with_capacity(plan.layers.len());
    let mut moving: Vec<Layer> = Vec::new();
    for wanted in &plan.layers {
        let diff_id = &wanted.diff_id;
        if let Some(layer) = known(store, &index, diff_id)? {
            layers.push(layer);
        } else if let Some(layer) = staging.finished(diff_id) {
            let stray = digest::hex(diff_id).map(|name| store.open_layer(name));
            if matches!(stray.transpose()?, Some(Some(_))) {
                let layer = diff_id.clone();
                return Err(ImageError::StrayLayer { layer }.into());
            }
            if !moving.contains(&layer) {
                moving.push(layer.clone());
            }
            layers.push(layer);
        } else {
            return Ok(None);
        }
    }
    let mut staged = Staged::default();
    for layer in moving {
        let at = format!("layer-{}", staged.layers.len());
        staging.hand_over(&layer.diff_id, &writing.tmp, &at)?;
        staged.layers.push((layer.diff_id, at));
    }
    for (digest, text) in [
        (&plan.id, &plan.config),
        (&plan.manifest.digest, &plan.manifest.text),
    ] {
        stage_blob(store, &writing, &mut staged, digest, text)?;
    }
    let created = plan.configuration.created().as_deref();
    let image = Image {
        id: plan.id.clone(),
        names: vec![name.to_owned()],
        config,
        size: layers.iter().map(|layer| layer.size).sum(),
        layers,
        created: created.and_then(|time| time.parse().ok()),
        imported: Timestamp::now(),
        digest: Some(plan.top.clone()),
        manifest: Some(plan.manifest.digest.clone()),
        pulled: [(name.to_owned(), plan.top.clone())].into(),
        platform: Some(plan.platform.clone()),
    };
    let mut images = publish(store, &writing, index, staged, vec![image])?;
    Ok(images.pop())
}
