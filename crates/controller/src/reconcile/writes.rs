//! The writes to the API server that are under way.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use ycloud_compiler::Owner;

use super::Reconciler;
use crate::write::Written;

/// Writes to the API server that are under way at once.
const MAX_WRITES: usize = 32;

/// A write that has ended.
pub(super) struct Finished {
    owner: Owner,
    /// UID of the object that was to be written.
    uid: Option<String>,
    rest: Option<Duration>,
    written: Written,
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
            if let (Written::Done(_), Some(report)) = (&written, need.report) {
                tokio::spawn(async move { writer.report(report).await });
            }
            Finished {
                owner,
                uid,
                rest: need.rest,
                written,
            }
        });
    }

    pub(super) fn on_written(&mut self, finished: Finished) {
        let Finished {
            owner,
            uid,
            rest,
            written,
        } = finished;
        self.metrics.write_ended(owner.kind(), written.word());
        let now = Instant::now();
        match written {
            Written::Done(event) => {
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
            let writer = self.writer.clone();
            tokio::spawn(async move { writer.report(note).await });
        }
    }
}
