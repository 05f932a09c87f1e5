//! When NetworkProbes are written: by jobs of their own, so that a thousand of them hold up no endpoint.
//!
//! # Guarantees
//! * No two jobs write the NetworkProbes of one YusurService at the same time.
//! * After a failure the next job of that YusurService waits, longer each time, whatever else happens to it.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::time::{Duration, Instant};

use kube::Client;
use tokio::task::{JoinError, JoinSet};
use ycloud_compiler::ObjectKey;

use super::ask::{self, Order};
use super::execute::Error;
use super::wait;

/// How many jobs write NetworkProbes at the same time.
const JOBS: usize = 8;

/// A job's end.
pub struct Asked {
    key: ObjectKey,
    result: Result<u64, Error>,
}

/// What follows from a job's end.
pub struct Ended {
    /// Whose NetworkProbes.
    pub key: ObjectKey,
    /// How many objects were written, or why not all were, and when to try again.
    pub result: Result<u64, (Error, Duration)>,
    /// Whether to plan for it now.
    pub dirty: bool,
}

/// Why NetworkProbes of a YusurService are not written.
struct Trouble {
    /// The answer of the API server, as an HTTP status.
    code: Option<u16>,
    text: String,
    /// In a row.
    failures: u32,
    /// When to try again.
    until: Instant,
}

/// Which jobs are under way, and which have to wait.
pub struct Asking {
    client: Client,
    jobs: JoinSet<Asked>,
    busy: BTreeSet<ObjectKey>,
    /// Those that were planned for while their job was under way.
    again: BTreeSet<ObjectKey>,
    /// The newest orders of those whose job cannot begin, as there are too many.
    waiting: BTreeMap<ObjectKey, Order>,
    troubles: BTreeMap<ObjectKey, Trouble>,
}

impl Asking {
    /// Nothing is under way.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            jobs: JoinSet::new(),
            busy: BTreeSet::new(),
            again: BTreeSet::new(),
            waiting: BTreeMap::new(),
            troubles: BTreeMap::new(),
        }
    }

    /// Writes what the newest plan for `key` says, now or when it may.
    ///
    /// # Errors
    /// The last attempt failed, and the next one has to wait until then: plan anew.
    pub fn write(&mut self, key: &ObjectKey, order: Order, now: Instant) -> Result<(), Instant> {
        self.waiting.remove(key);
        if order.is_empty() {
            self.troubles.remove(key);
            return Ok(());
        }
        if self.busy.contains(key) {
            self.again.insert(key.clone());
            return Ok(());
        }
        if let Some(trouble) = self.troubles.get(key).filter(|trouble| trouble.until > now) {
            return Err(trouble.until);
        }
        match self.jobs.len() < JOBS {
            true => self.start(key.clone(), order),
            false => {
                self.waiting.insert(key.clone(), order);
            }
        }
        Ok(())
    }

    /// Why NetworkProbes of `key` are not written, if they are not.
    pub fn trouble(&self, key: &ObjectKey) -> Option<&str> {
        let trouble = self.troubles.get(key)?;
        Some(&trouble.text)
    }

    /// The YusurService is gone.
    pub fn forget(&mut self, key: &ObjectKey) {
        self.waiting.remove(key);
        self.again.remove(key);
        self.troubles.remove(key);
    }

    /// The next job that ends; none if none is under way.
    pub async fn next(&mut self) -> Option<Result<Asked, JoinError>> {
        self.jobs.join_next().await
    }

    /// Begins none of the jobs that wait.
    pub fn stop(&mut self) {
        self.waiting.clear();
    }

    /// Ends all jobs where they are.
    pub async fn shutdown(&mut self) {
        self.jobs.shutdown().await;
    }

    /// Takes a job's end in, and begins the next one.
    pub fn finish(&mut self, asked: Asked, now: Instant) -> Ended {
        let Asked { key, result } = asked;
        self.busy.remove(&key);
        let again = self.again.remove(&key);
        if let Some((next, order)) = self.waiting.pop_first() {
            self.start(next, order);
        }
        match result {
            Ok(written) => Ended {
                dirty: again | self.troubles.remove(&key).is_some(),
                result: Ok(written),
                key,
            },
            Err(error) => {
                let wait = self.fail(&key, &error, now);
                Ended {
                    // To tell of it.
                    dirty: true,
                    result: Err((error, wait)),
                    key,
                }
            }
        }
    }

    fn start(&mut self, key: ObjectKey, order: Order) {
        let client = self.client.clone();
        self.busy.insert(key.clone());
        self.jobs.spawn(async move {
            let result = ask::write(&client, &order).await;
            Asked { key, result }
        });
    }

    fn fail(&mut self, key: &ObjectKey, error: &Error, now: Instant) -> Duration {
        let code = error.code();
        let former = self.troubles.remove(key);
        let failures = former.as_ref().map_or(0, |former| former.failures);
        let wait = wait(failures);
        // The same trouble with another of them is no news, or the status would be written each time.
        let former = former.filter(|former| former.code == code);
        let text = former.map_or_else(|| words(error), |former| former.text);
        let trouble = Trouble {
            code,
            text,
            failures: failures + 1,
            until: now + wait,
        };
        self.troubles.insert(key.clone(), trouble);
        wait
    }
}

/// The API server's own words, or the causes if it did not answer; and the cure where it says no.
fn words(error: &Error) -> String {
    let text = match error.answer() {
        Some(answer) => format!("{error}: {answer}"),
        None => {
            let causes = std::iter::successors(error.source(), |&cause| cause.source());
            causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
        }
    };
    match error.code() {
        Some(403 | 404 | 422) => format!(
            "{text}; see that the CRDs and the ClusterRole of yusurservice-controller are those of its release, and the quotas of the namespace"
        ),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yusurservice::tests::no_client;

    fn order() -> Order {
        Order {
            namespace: "ns".into(),
            uid: "u".into(),
            wanted: Vec::new(),
            surplus: vec!["p".into()],
        }
    }

    fn refused(key: &ObjectKey, name: &str, code: u16) -> Asked {
        let text = format!("{name} is forbidden");
        let status = kube::core::Status::failure(&text, "Forbidden").with_code(code);
        Asked {
            key: key.clone(),
            result: Err(Error::Request {
                verb: "create",
                kind: "NetworkProbe",
                name: name.into(),
                source: Box::new(kube::Error::Api(Box::new(status))),
            }),
        }
    }

    #[tokio::test]
    async fn a_failure_is_told_once_and_the_next_attempt_waits() {
        let mut asking = Asking::new(no_client());
        let (key, start) = (ObjectKey::new("ns", "svc"), Instant::now());
        let none = Order {
            surplus: Vec::new(),
            ..order()
        };
        assert!(asking.write(&key, order(), start).is_ok());
        let ended = asking.finish(refused(&key, "a", 403), start);
        let (_, wait) = ended.result.unwrap_err();
        assert!(ended.dirty && wait > Duration::ZERO);
        let text = asking.trouble(&key).unwrap().to_owned();
        assert!(
            text.starts_with("failed to create NetworkProbe a: a is forbidden; see"),
            "{text}"
        );
        assert_eq!(asking.write(&key, order(), start), Err(start + wait));
        assert!(asking.write(&key, order(), start + wait).is_ok());

        let ended = asking.finish(refused(&key, "b", 403), start);
        assert!(ended.result.unwrap_err().1 > wait, "longer each time");
        assert_eq!(asking.trouble(&key), Some(text.as_str()));
        asking.finish(refused(&key, "b", 500), start);
        assert_ne!(asking.trouble(&key), Some(text.as_str()));
        assert!(asking.write(&key, none, start).is_ok());
        assert_eq!(
            asking.trouble(&key),
            None,
            "nothing is to be written any more"
        );
    }

    #[tokio::test]
    async fn one_job_for_each_and_not_too_many() {
        let mut asking = Asking::new(no_client());
        let now = Instant::now();
        let key = |n: usize| ObjectKey::new("ns", format!("svc-{n}"));
        for n in 0..JOBS + 1 {
            assert!(asking.write(&key(n), order(), now).is_ok());
        }
        assert_eq!((asking.busy.len(), asking.waiting.len()), (JOBS, 1));
        assert!(asking.write(&key(0), order(), now).is_ok());
        let done = |n| Asked {
            key: key(n),
            result: Ok(1),
        };
        assert!(asking.finish(done(0), now).dirty, "planned for meanwhile");
        assert!(asking.busy.contains(&key(JOBS)) && asking.waiting.is_empty());
        assert!(!asking.finish(done(1), now).dirty);
    }
}
