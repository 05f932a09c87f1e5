//! The writes to the API server that are under way.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use ycloud_compiler::Owner;

use super::Reconciler;
use crate::write::{Report, Written};

/// Writes to the API server that are under way at once.
const MAX_WRITES: usize = 32;

/// A write that has ended.
pub(super) struct Finished {
    owner: Owner,
    /// UID of the object that was to be written.
    uid: Option<String>,
    rest: Option<Duration>,
    written: Written,
    /// What an Event is to say if it was done.
    report: Option<Report>,
}

impl Reconciler {
    pub(super) fn start_writes(&mut self, now: Instant) {
        let time = Time(Timestamp::now());
        while self.writes.len() < MAX_WRITES {
            let Some(owner) = self.state.objects.take(now) else {
                return;
            };
            self.start_write(&owner, &time);
        }
    }

    /// Starts the write that the object needs next, if any.
    pub(super) fn start_write(&mut self, owner: &Owner, time: &Time) {
        let Some(need) = self.state.next_write(owner, time) else {
            self.state.objects.idle(owner);
            return;
        };
        tracing::debug!(%owner, action = ?need.action, "write");
        self.state.objects.begin(owner);
        let (owner, writer) = (owner.clone(), self.writer.clone());
        let uid = self.state.uid(&owner);
        self.writes.spawn(async move {
            let written = writer.write(&owner, need.action).await;
            Finished {
                owner,
                uid,
                rest: need.rest,
                written,
                report: need.report,
            }
        });
    }

    pub(super) fn on_written(&mut self, finished: Finished) {
        let Finished {
            owner,
            uid,
            rest,
            written,
            report,
        } = finished;
        self.metrics.write_ended(owner.kind(), written.word());
        let now = Instant::now();
        match written {
            Written::Done(event) => {
                report.into_iter().for_each(|report| self.report(report));
                self.state.take_answer(&owner, event);
                self.state.objects.succeeded(&owner, rest, now);
            }
            Written::Stale(event) => {
                self.state.take_answer(&owner, event);
                self.state.objects.succeeded(&owner, None, now);
            }
            Written::Gone => {
                self.state.take_absence(&owner, uid);
                self.state.objects.idle(&owner);
            }
            Written::TooSoon => self.state.objects.failed(&owner, now),
            Written::Failed(why) => {
                tracing::warn!(%owner, why, "failed to write to the API server; trying again");
                self.state.objects.failed(&owner, now);
            }
        }
        self.state.answered(&owner);
    }

    pub(super) fn publish_notes(&mut self) {
        for note in self.state.take_notes() {
            self.report(note);
        }
    }

    /// Publishes an Event, beside all else.
    fn report(&mut self, report: Report) {
        let writer = self.writer.clone();
        self.reports
            .spawn(async move { writer.report(report).await });
    }
}
