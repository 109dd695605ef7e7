//! Layers that are there in another form than this build writes: made again from their blobs, in one pass, and never by
//! running a step again.

use std::collections::HashSet;

use fluyt_client::Reference;

use super::{BuiltLayer, Executor, RootState, StepError};
use crate::cache::{ConvertedRecord, LayerRecord, REAL_TIMES, Stamps};
use crate::event::{Event, StepId};
use crate::image::media_type;
use crate::layer::{LayerError, LayerOptions, LayerPath, Times, recompress, restamp};

impl Executor {
    /// How the layer of a step is written whose entries get their times in this way.
    pub(super) fn written_with(&self, stamps: Stamps) -> LayerOptions {
        let times = match (self.options.layers.times, stamps) {
            (Times::Clamp(epoch), Stamps::Context) => Times::Fixed(epoch),
            (times, _) => times,
        };
        LayerOptions { times, ..self.options.layers }
    }

    /// The time that the image's history tells of a step that ran at `seconds`: the epoch where there is one.
    pub(super) fn told_time(&self, seconds: i64) -> i64 {
        match self.options.layers.times {
            Times::Real => seconds,
            Times::Clamp(epoch) | Times::Fixed(epoch) => epoch,
        }
    }

    /// What a record says of the form that its blob must have for a step whose entries get their times in this way:
    /// compression and times.
    pub(super) fn form(&self, stamps: Stamps) -> (String, String) {
        let options = self.written_with(stamps);
        (options.compression.recorded(), recorded_times(options.times))
    }

    /// The layer of `record` in the compression and with the times that this build wants, made again from its blob where it
    /// has others. `None` where that cannot be, and the step has to run again: the blob or its index is gone or damaged.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(super) fn as_wanted(&self, step: StepId, record: &LayerRecord) -> Result<Option<LayerRecord>, StepError> {
        let options = self.written_with(record.stamps);
        let (compression, times) = self.form(record.stamps);
        if record.compression == compression && record.times == times {
            return Ok(Some(record.clone()));
        }
        if self.store.size(&record.digest)? != Some(record.size_bytes) {
            return Ok(None);
        }
        // Whatever the blob's times are, the index has those that a RUN sees.
        let index = match record.times == times {
            true => None,
            false => match self.kept_index(&record.diff_id, Some(record)) {
                Some(index) => Some(index),
                None => return Ok(None),
            },
        };
        let size = crate::event::size(record.size_bytes);
        self.converting(
            format!(
                "[internal] write a cached layer ({size}) with other {}",
                match &index {
                    Some(_) => "times",
                    None => "compression",
                }
            ),
            |_| {
                let (store, blob) = (&self.store, self.store.open_verified(&record.digest)?);
                let made = match &index {
                    None => recompress(store, blob, &record.diff_id, options).map(|made| LayerRecord {
                        digest: made.digest,
                        size_bytes: made.size_bytes,
                        media_type: made.media_type,
                        ..record.clone()
                    }),
                    Some(index) => {
                        let fixed: HashSet<&str> = record.fixed.iter().map(String::as_str).collect();
                        let of = |path: &LayerPath| match fixed.contains(&*path.to_string()) {
                            true => self.written_with(Stamps::Context).times,
                            false => options.times,
                        };
                        let made = restamp(store, blob, &record.media_type, &record.diff_id, index, options, &of);
                        made.and_then(|made| {
                            made.index.save(store, &made.diff_id)?;
                            Ok(LayerRecord {
                                diff_id: made.diff_id,
                                digest: made.digest,
                                size_bytes: made.size_bytes,
                                media_type: made.media_type,
                                ..record.clone()
                            })
                        })
                    }
                };
                match made {
                    Ok(made) => Ok(Some(LayerRecord { compression, times, ..made })),
                    Err(error) if is_of_the_source(&error) && !self.cancel.is_cancelled() => {
                        self.events.hear(Event::Warning { text: format!("a cached layer is made again: {error}") });
                        tracing::debug!(%step, %error, "a cached layer cannot be rewritten");
                        Ok(None)
                    }
                    Err(error) => Err(error.into()),
                }
            },
        )
    }

    /// Tells of a conversion as of a step, which nothing else tells of, and ends it with the build.
    fn converting<T>(
        &self,
        name: String,
        convert: impl FnOnce(StepId) -> Result<T, StepError>,
    ) -> Result<T, StepError> {
        let step = self.steps.begin(&self.events, name);
        let made = self.cancel.overrides(convert(step));
        self.events.ended(step, &made);
        made
    }

    /// The layers of `state` with those of base images compressed as this build compresses its own; what is compressed so
    /// already is left as it is. A layer that was converted before is found again.
    ///
    /// # Errors
    /// When a layer cannot be had, or the store not be written.
    pub fn force_compression(&self, state: &RootState) -> Result<RootState, StepError> {
        let options = self.options.layers;
        let wanted = options.compression.media_type();
        let others = |layer: &BuiltLayer| {
            let media_type = crate::image::Format::Oci.media_type(&layer.media_type.as_str().into());
            media_type.as_ref() != wanted && !media_type::is_foreign(&media_type)
        };
        if !state.layers.iter().any(others) {
            return Ok(state.clone());
        }
        self.converting("compress the base image's layers".to_owned(), |step| {
            let mut forced = state.clone();
            for layer in forced.layers.iter_mut().filter(|layer| others(layer)) {
                self.cancel.check()?;
                *layer = self.converted(step, layer, options)?;
            }
            Ok(forced)
        })
    }

    fn converted(&self, step: StepId, layer: &BuiltLayer, options: LayerOptions) -> Result<BuiltLayer, StepError> {
        let compression = options.compression.recorded();
        if let Some(ConvertedRecord { digest, size_bytes, media_type, .. }) =
            self.records.converted(&layer.digest, &compression)
            && self.store.size(&digest)? == Some(size_bytes)
        {
            return Ok(BuiltLayer { digest, size_bytes, media_type, origin: None, ..layer.clone() });
        }
        self.ensure_blob(step, layer)?;
        let made = recompress(&self.store, self.store.open_verified(&layer.digest)?, &layer.diff_id, options)?;
        self.records.keep_converted(&ConvertedRecord {
            source: layer.digest.clone(),
            compression,
            digest: made.digest.clone(),
            size_bytes: made.size_bytes,
            media_type: made.media_type.clone(),
        })?;
        Ok(BuiltLayer {
            digest: made.digest,
            size_bytes: made.size_bytes,
            media_type: made.media_type,
            origin: None::<Reference>,
            ..layer.clone()
        })
    }
}

/// Times as records spell them.
fn recorded_times(times: Times) -> String {
    match times {
        Times::Real => REAL_TIMES.to_owned(),
        Times::Clamp(epoch) => format!("clamp {epoch}"),
        Times::Fixed(epoch) => format!("fixed {epoch}"),
    }
}

/// Whether the fault is the stored blob's, so that running the step again helps.
fn is_of_the_source(error: &LayerError) -> bool {
    use crate::blob::StoreError;
    match error {
        LayerError::Store(error) => matches!(error, StoreError::Corrupt { .. } | StoreError::Missing { .. }),
        LayerError::Write(_) => false,
        _ => true,
    }
}
