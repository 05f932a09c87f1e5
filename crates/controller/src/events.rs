//! Events, as both controllers publish them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

/// Longest note of an Event, in bytes. Source: events.k8s.io/v1 `Event.note`.
const MAX_NOTE: usize = 1024;

/// Longest wait for the answer to one request.
const LIMIT: Duration = Duration::from_secs(15);

/// About how many objects it is remembered what was said last.
const REMEMBERED: usize = 4_096;

/// What an Event says, and on which object.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The object.
    pub regarding: ObjectReference,
    /// Whether people should look at it.
    pub warning: bool,
    /// Reason, as in the condition.
    pub reason: String,
    /// What was being done.
    pub action: &'static str,
    /// For people; cut at 1,024 bytes, the API's limit.
    pub message: String,
}

/// What a run of equal Events is about: the object, by kind, namespace and name, and the action.
type Topic = (Option<String>, Option<String>, Option<String>, &'static str);

/// What was said last of a topic, and whatever continues it. Pure.
#[derive(Debug)]
struct Said<T>(HashMap<Topic, (Report, T)>);

impl<T: Clone> Said<T> {
    /// What continues `report`: that of the last one of its topic if that was the same, else what `fresh` makes.
    fn of(&mut self, report: &Report, fresh: impl FnOnce() -> T) -> T {
        let about = &report.regarding;
        let topic = (
            about.kind.clone(),
            about.namespace.clone(),
            about.name.clone(),
            report.action,
        );
        let says = |report: &Report| {
            let uid = report.regarding.uid.clone();
            (
                report.warning,
                report.reason.clone(),
                report.message.clone(),
                uid,
            )
        };
        if let Some((last, run)) = self.0.get(&topic)
            && says(last) == says(report)
        {
            return run.clone();
        }
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        let run = fresh();
        self.0.insert(topic, (report.clone(), run.clone()));
        run
    }
}

/// Publishes Events. Equal ones that follow each other become one that counts them. Another text is another Event: a Recorder
/// would count it with the former one, under that one's text. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    client: Client,
    reporter: Reporter,
    said: Arc<Mutex<Said<Recorder>>>,
}

impl Events {
    /// `controller`: the name of the program; `identity`: that of this replica.
    pub fn new(client: Client, controller: &str, identity: &str) -> Self {
        Self {
            client,
            reporter: Reporter {
                controller: controller.to_owned(),
                instance: Some(identity.to_owned()),
            },
            said: Arc::new(Mutex::new(Said(HashMap::new()))),
        }
    }

    /// Publishes one; a failure is logged only.
    pub async fn publish(&self, report: Report) {
        let recorder = {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = || Recorder::new(self.client.clone(), self.reporter.clone());
            said.of(&report, fresh)
        };
        let Report {
            regarding,
            warning,
            reason,
            action,
            mut message,
        } = report;
        message.truncate(message.floor_char_boundary(MAX_NOTE));
        let event = Event {
            type_: match warning {
                true => EventType::Warning,
                false => EventType::Normal,
            },
            reason,
            note: Some(message),
            action: action.to_owned(),
            secondary: None,
        };
        let request = recorder.publish(&event, &regarding);
        let error = match tokio::time::timeout(LIMIT, request).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {LIMIT:?}"),
        };
        let object = regarding.name.unwrap_or_default();
        tracing::warn!(object, error, "failed to publish an Event");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_text_begins_another_event() {
        let report = |name: &str, action, message: &str| Report {
            regarding: ObjectReference {
                name: Some(name.to_owned()),
                ..ObjectReference::default()
            },
            warning: true,
            reason: "Refused".to_owned(),
            action,
            message: message.to_owned(),
        };
        let mut said = Said(HashMap::new());
        let mut runs = 0;
        let mut run = |report: &Report| {
            said.of(report, || {
                runs += 1;
                runs
            })
        };
        let one = report("a", "Ready", "1 of 12");
        assert_eq!([run(&one), run(&one)], [1, 1], "counted");
        assert_eq!(run(&report("a", "Ready", "12 of 12")), 2);
        assert_eq!(run(&report("b", "Ready", "12 of 12")), 3);
        assert_eq!(run(&report("a", "Accepted", "12 of 12")), 4);
        assert_eq!(run(&one), 5, "something else was said in between");
        for n in 0..2 * REMEMBERED {
            run(&report(&n.to_string(), "Ready", ""));
        }
        assert!(said.0.len() <= REMEMBERED);
    }
}
