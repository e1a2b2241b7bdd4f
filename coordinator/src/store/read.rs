//! What a store holds when it is opened, and what of it is void.

use std::path::Path;

use prost::Message as _;
use proto::v1::StepPoint;
use redb::{Database, ReadableDatabase, ReadableTable};

use super::{
    DIGESTS, EVALUATIONS, GENERATION, LEDGER, LOSSES, META, PARTS, RUN_ID, Recorded, Resume,
    SCORES, SERVED, STEPS, StoreError,
};

/// How a store was found.
pub(super) enum Prepared {
    /// It is another run's.
    OtherRun(String),
    /// Its coordinator was lost, and its workers may be alive.
    LeftBehind,
    /// The run goes on at this step.
    At {
        step: u64,
        /// Whether its coordinator was lost.
        lost: bool,
    },
}

/// Makes the tables and drops void steps.
pub(super) fn prepare(
    database: &Database,
    run_id: &str,
    resume: Resume,
) -> Result<Prepared, redb::Error> {
    let transaction = database.begin_write()?;
    let prepared;
    {
        let mut meta = transaction.open_table(META)?;
        let found = meta
            .get(RUN_ID)?
            .map(|id| String::from_utf8_lossy(id.value()).into_owned());
        match found {
            Some(found) if found != run_id => return Ok(Prepared::OtherRun(found)),
            Some(_) => {}
            None => {
                meta.insert(RUN_ID, run_id.as_bytes())?;
            }
        }
        let lost = meta.get(SERVED)?.is_some();
        let has_begun = meta.get(GENERATION)?.is_some();
        prepared = match resume {
            Resume::WithWorkersOr(_) if lost && has_begun => Prepared::LeftBehind,
            Resume::WithWorkersOr(step) | Resume::At(step) => Prepared::At { step, lost },
        };
        meta.insert(SERVED, [1u8].as_slice())?;
        let (mut steps, mut digests) = (
            transaction.open_table(STEPS)?,
            transaction.open_table(DIGESTS)?,
        );
        let mut scores = transaction.open_table(SCORES)?;
        transaction.open_table(EVALUATIONS)?;
        if let Prepared::At { step, .. } = prepared {
            steps.retain_in(step.., |_, _| false)?;
            digests.retain_in((step, 0).., |_, _| false)?;
            scores.retain_in((step.saturating_add(1), 0).., |_, _| false)?;
        }
    }
    transaction.commit()?;
    Ok(prepared)
}

/// Whether a coordinator serves the run, or was lost while it did.
pub(crate) fn is_served(database: &dyn ReadableDatabase) -> Result<bool, redb::Error> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    Ok(meta.get(SERVED)?.is_some())
}

pub(super) fn read(
    database: &dyn ReadableDatabase,
    path: &Path,
    begins_at_step: u64,
) -> Result<Recorded, StoreError> {
    let failed = |problem: redb::Error| StoreError::Open {
        path: path.to_owned(),
        problem: problem.to_string(),
    };
    let content = |what, problem: String| StoreError::Content {
        path: path.to_owned(),
        what,
        problem,
    };
    let mut recorded = Recorded::default();
    let transaction = database.begin_read().map_err(|e| failed(e.into()))?;
    let meta = transaction.open_table(META).map_err(|e| failed(e.into()))?;
    recorded.served = meta.get(SERVED).map_err(|e| failed(e.into()))?.is_some();
    if let Some(value) = meta.get(GENERATION).map_err(|e| failed(e.into()))? {
        let bytes: [u8; 8] = value
            .value()
            .try_into()
            .map_err(|_| content("generation number", "not 8 bytes".to_owned()))?;
        recorded.generation = u64::from_le_bytes(bytes);
    }
    if let Some(value) = meta.get(LEDGER).map_err(|e| failed(e.into()))? {
        recorded.ledger =
            serde_json::from_slice(value.value()).map_err(|e| content("ledger", e.to_string()))?;
    }
    if let Some(value) = meta.get(LOSSES).map_err(|e| failed(e.into()))? {
        recorded.losses =
            serde_json::from_slice(value.value()).map_err(|e| content("losses", e.to_string()))?;
    }
    if let Some(value) = meta.get(PARTS).map_err(|e| failed(e.into()))? {
        let bytes: [u8; 4] = value
            .value()
            .try_into()
            .map_err(|_| content("number of parts", "not 4 bytes".to_owned()))?;
        recorded.forward_parts = u32::from_le_bytes(bytes);
    }
    let steps = transaction
        .open_table(STEPS)
        .map_err(|e| failed(e.into()))?;
    for entry in steps.iter().map_err(|e| failed(e.into()))? {
        let (_, value) = entry.map_err(|e| failed(e.into()))?;
        recorded
            .steps
            .push(StepPoint::decode(value.value()).map_err(|e| content("step", e.to_string()))?);
    }
    let evaluations = transaction
        .open_table(EVALUATIONS)
        .map_err(|e| failed(e.into()))?;
    for entry in evaluations
        .range(..=begins_at_step)
        .map_err(|e| failed(e.into()))?
    {
        let (_, value) = entry.map_err(|e| failed(e.into()))?;
        recorded.evaluations.push(
            serde_json::from_slice(value.value())
                .map_err(|e| content("evaluation", e.to_string()))?,
        );
    }
    let scores = transaction
        .open_table(SCORES)
        .map_err(|e| failed(e.into()))?;
    for entry in scores.iter().map_err(|e| failed(e.into()))? {
        let (key, value) = entry.map_err(|e| failed(e.into()))?;
        let words = value.value().chunks_exact(4);
        let logits = words.map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let logits: Vec<f32> = logits.collect();
        let skipped = logits.is_empty();
        recorded
            .scores
            .insert(key.value(), (!skipped).then_some(logits));
    }
    Ok(recorded)
}
