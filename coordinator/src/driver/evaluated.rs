//! Scores and figures as they come in.

use std::sync::Arc;

use domain::run::Event;
use domain::scoring::Way;
use domain::train_gap::Gap;

use super::{Driver, Message};
use crate::evaluation::Evaluated;
use crate::observer::RunEvent;
use crate::reach;

impl Driver {
    pub(super) async fn on_scored(
        &mut self,
        step: u64,
        scored: u32,
        samples: u32,
        began: bool,
        skipped: Vec<(u32, String)>,
    ) {
        let epoch = step.checked_sub(1).map_or(0, |last| {
            u32::try_from(last / self.steps_per_epoch()).unwrap_or(u32::MAX)
        });
        if began {
            // Scores come many at a time: the first of them are long under way.
            self.evaluating = self.last_step.map(|committed| (step, committed));
            self.parts
                .observer
                .tell(RunEvent::EvaluationBegan { epoch, samples });
        }
        for (sample, reason) in skipped {
            match self.parts.evaluations.place(sample) {
                Some((Way::Val, sample)) => self.list_skipped("val", sample, reason),
                // The same pictures as in validation.
                Some((Way::ValAverage, _)) | None => {}
                Some((_, sample)) => self.list_skipped("train", sample, reason),
            }
        }
        self.parts.observer.tell(RunEvent::Scored {
            epoch,
            scored,
            samples,
        });
        self.happen(Event::Scored {
            step,
            scored,
            samples,
        })
        .await;
    }

    fn steps_per_epoch(&self) -> u64 {
        let epochs = u64::from(self.state().config().shape.epochs.max(1));
        (self.state().total_steps() / epochs).max(1)
    }

    pub(super) async fn on_evaluated(
        &mut self,
        step: u64,
        outcome: Result<Box<(Evaluated, Option<String>)>, String>,
    ) {
        let (problem, map) = match outcome {
            Ok(evaluated) => {
                let (evaluated, unkept) = *evaluated;
                if let Some(problem) = unkept {
                    self.warn(problem);
                }
                let map = evaluated.metrics.average_precision.map;
                self.keep_evaluation(evaluated);
                reach("evaluated");
                (None, map)
            }
            Err(problem) => (Some(problem), None),
        };
        let map_bits = map.map(f64::to_bits);
        self.happen(Event::Evaluated {
            step,
            problem,
            map_bits,
        })
        .await;
    }

    fn keep_evaluation(&mut self, mut evaluated: Evaluated) {
        if let Some((step, committed)) = self.evaluating
            && step == evaluated.step
        {
            evaluated.seconds = committed.elapsed().as_secs_f64();
        }
        self.parts.store.evaluation(&evaluated);
        self.parts.history.push_evaluation(evaluated.clone());
        let best_before = self.shown.best;
        (self.shown.last_map, self.shown.best) = self.parts.history.maps();
        let Evaluated {
            step,
            epoch,
            seconds,
            metrics,
            ..
        } = evaluated;
        let map = metrics.average_precision.map;
        if let Some(gap) = metrics.train_gap.filter(Gap::is_a_defect) {
            let text = format!("after epoch {}: {}", epoch + 1, gap.text());
            self.warn(text);
        }
        let best = map.is_some() && self.shown.best != best_before;
        let duration = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let metrics = Box::new(metrics);
        let (scores, history) = (
            Arc::clone(&self.parts.scores),
            Arc::clone(&self.parts.history),
        );
        tokio::task::spawn_blocking(move || {
            if let Err(problem) = scores.settle(|| history.steps_and_maps()) {
                tracing::warn!(%problem, "the links to kept scores were not moved");
            }
        });
        self.parts.observer.tell(RunEvent::Evaluated {
            epoch,
            step,
            metrics,
            duration,
            best,
        });
        // A checkpoint may have been committed before its figures were known: on resume, or by a person's request.
        if let Some(map) = map {
            let (checkpoints, mail) = (self.parts.checkpoints.clone(), self.parts.mail.clone());
            tokio::spawn(async move {
                let set = move || checkpoints.set_map(step, map);
                match tokio::task::spawn_blocking(set).await {
                    Ok(Ok(Some((best, _)))) => {
                        // The run may be over.
                        let _ = mail.send(Message::Best(best)).await;
                    }
                    Ok(Err(problem)) => {
                        tracing::debug!(step, %problem, "no checkpoint takes this mAP");
                    }
                    Ok(Ok(None)) | Err(_) => {}
                }
            });
        }
    }
}
