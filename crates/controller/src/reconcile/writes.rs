//! The writes to the API server that are under way.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use ycloud_compiler::Owner;

use super::Reconciler;
use crate::objects::Need;
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
    /// It only tells how something else is.
    tells: bool,
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
            self.state.refused_no_more(owner);
            self.state.objects.idle(owner);
            return;
        };
        self.state.objects.begin(owner);
        self.spawn_write(owner, need);
    }

    fn spawn_write(&mut self, owner: &Owner, need: Need) {
        tracing::debug!(%owner, action = ?need.action, "write");
        let (owner, writer) = (owner.clone(), self.writer.clone());
        let uid = self.state.uid(&owner);
        let tells = need.action.tells();
        self.writes.spawn(async move {
            let written = writer.write(&owner, need.action).await;
            Finished {
                owner,
                uid,
                rest: need.rest,
                written,
                report: need.report,
                tells,
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
            tells,
        } = finished;
        self.metrics.write_ended(owner.kind(), written.word());
        let now = Instant::now();
        match written {
            Written::Done(event) => {
                report.into_iter().for_each(|report| self.report(report));
                self.state.take_answer(&owner, event);
                match tells {
                    // What is refused waits for its next turn.
                    true if self.state.is_refused(&owner) => self.state.objects.failed(&owner, now),
                    true => self.state.objects.succeeded(&owner, rest, now),
                    false => {
                        self.state.refused_no_more(&owner);
                        self.state.objects.succeeded(&owner, rest, now);
                    }
                }
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
            Written::Refused(why) => {
                // It is told all the same: by an Event, if a condition cannot be written.
                report.into_iter().for_each(|report| self.report(report));
                let time = Time(Timestamp::now());
                let told = match tells {
                    true => {
                        self.state.untold(&owner);
                        None
                    }
                    false => self.state.refuse(&owner, &why, &time),
                };
                tracing::warn!(%owner, why, "the API server refuses a write; trying again");
                if let Some(need) = told {
                    self.spawn_write(&owner, need);
                    return;
                }
                self.state.objects.failed(&owner, now);
            }
            Written::Failed(why) => {
                if tells {
                    self.state.untold(&owner);
                }
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
