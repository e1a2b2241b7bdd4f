//! A dry run for programs. Times are seconds, sizes bytes, shares from 0 to 1.

use serde_json::{Value, json};

use super::{Probed, Rehearsal, WARM_UP};

impl Rehearsal {
    /// One object.
    pub(crate) fn to_json(&self) -> Value {
        let planned = &self.planned;
        let turn = |turn: &super::Milestone| json!({ "step": turn.step, "what": turn.what });
        let shares = self
            .estimate
            .map(|estimate| estimate.shares.of(estimate.bottleneck));
        json!({
            "format": 1,
            "plan": {
                "training_images": planned.images.0,
                "validation_images": planned.images.1,
                "workers": planned.workers,
                "device": planned.device,
                "global_batch": planned.batch.0,
                "micro_batch": planned.batch.1,
                "epochs": planned.epochs.0,
                "steps_per_epoch": planned.epochs.1,
                "last_step_images": planned.last_step_images,
                "steps": planned.course.steps,
                "images": planned.course.images,
                "evaluations": planned.course.evaluations,
                "rows_per_evaluation": planned.rows,
                "checkpoints": planned.course.checkpoints,
                "checkpoints_at_once": planned.course.checkpoints_at_once,
                "schedule": planned.schedule,
                "milestones": planned.milestones.iter().map(turn).collect::<Vec<_>>(),
                "runs": self.runs,
            },
            "probe": self.probed.as_ref().map(Probed::to_json),
            "estimate": self.estimate.map(|estimate| json!({
                "step_seconds": estimate.step,
                "images_per_second": estimate.images_per_second,
                "epoch_seconds": estimate.epoch,
                "evaluation_seconds": estimate.evaluation,
                "checkpoint_seconds": estimate.checkpoint,
                "run_seconds": estimate.run,
                "all_runs_seconds": self.all_runs(),
                "worker_hours": self.worker_hours(),
                "cost": self.cost(),
                "shares": estimate.shares,
                "bottleneck": estimate.bottleneck,
                "bottleneck_share": shares,
                "bottleneck_sentence": self.bottleneck,
            })),
            "price_per_worker_hour": self.price,
            "checkpoint_bytes": self.checkpoint_bytes,
            "disk_bytes": self.disk_bytes(),
            "free_disk_bytes": self.free_bytes,
            "notes": self.notes,
            "warnings": self.warnings,
        })
    }
}

impl Probed {
    fn to_json(&self) -> Value {
        let mut value = json!(self.measured);
        let worker =
            |(worker, bytes): &(String, u64)| json!({ "worker_id": worker, "peak_bytes": bytes });
        value["warm_up_steps"] = json!(WARM_UP);
        value["worker_memory"] = self.worker_memory.iter().map(worker).collect();
        value["coordinator_peak_bytes"] = json!(self.coordinator_memory);
        value["memory_bytes"] = json!(self.memory());
        value["machine_memory_bytes"] = json!(self.machine_memory.limit);
        value["available_memory_bytes"] = json!(self.machine_memory.available);
        value["device_memory_used_bytes"] = json!(self.device_memory.map(|(used, _)| used));
        value["device_memory_total_bytes"] = json!(self.device_memory.map(|(_, total)| total));
        value
    }
}
