//! What the objects' status shall say: pure, one file a kind.
//!
//! Each function takes the object as it is and what is known of its rows, and returns the status that it should have.
//! The caller writes it if it differs; a status that is computed again from the same facts is equal.

pub mod eip;
pub mod eip_gateway;
pub mod network_probe;
pub mod service;
pub mod subnet;
pub mod vnic;
pub mod vpc;

use ycloud_api::condition::{Verdict, reason};
use ycloud_compiler::Rejection;

/// What is known of the rows of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowState {
    /// The Northbound database has exactly the rows that the object must have.
    Settled,
    /// Not compared yet, or under way.
    Pending,
    /// The object is refused.
    Refused(Rejection),
    /// The Northbound database refuses the rows; in words.
    Failing(String),
    /// It has exactly the rows that it must have, and yet does not do what its spec asks: see
    /// [`ycloud_compiler::hindrance`]. Worked out when it is asked for, never stored.
    Hindered(Rejection),
}

/// The condition `Ready` of an object of which nothing but its rows matters; `None`: nothing is known yet.
fn ready(state: &RowState) -> Option<Verdict> {
    match state {
        RowState::Settled => Some(Verdict::yes(
            reason::READY,
            "the Northbound database has its rows",
        )),
        RowState::Pending => None,
        RowState::Refused(rejection) | RowState::Hindered(rejection) => {
            Some(Verdict::no(rejection.reason, &rejection.message))
        }
        RowState::Failing(why) => Some(Verdict::no(
            reason::REFUSED,
            format!("the Northbound database refuses its rows and is asked again: {why}"),
        )),
    }
}

/// That of a Vpc or Subnet, which takes no newcomers while it is being deleted, whatever else there is to be said.
fn ready_or_leaving(deleting: bool, state: &RowState) -> Option<Verdict> {
    match deleting {
        true => Some(Verdict::no(
            reason::DELETING,
            "it is being deleted and takes no newcomers; condition InUse says for whom it waits",
        )),
        false => ready(state),
    }
}

/// How many names stand in a column of `kubectl get`.
const SUMMARY: usize = 8;

/// Names as text, for a column of `kubectl get`, which prints lists as JSON; `None` if there are none.
fn summary(names: &[String]) -> Option<String> {
    let shown = names.iter().take(SUMMARY).cloned().collect::<Vec<_>>();
    let more = match names.len().saturating_sub(SUMMARY) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!names.is_empty()).then(|| shown.join(",") + &more)
}

/// How many users a message names.
const NAMED_USERS: usize = 5;

/// The condition `InUse` of an object; `users` as [`ycloud_compiler::users`] names them.
fn in_use(deleting: bool, users: &[String]) -> Option<Verdict> {
    if !deleting || users.is_empty() {
        return None;
    }
    let named = users.iter().take(NAMED_USERS).cloned();
    let named = named.collect::<Vec<_>>().join(", ");
    let more = users.len().saturating_sub(NAMED_USERS);
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(Verdict::yes(
        reason::IN_USE,
        format!(
            "the deletion waits for {} user{}: {named}{more}; delete them first",
            users.len(),
            if users.len() == 1 { "" } else { "s" },
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_names_eight_and_counts_the_rest() {
        let names: Vec<String> = (1..=10).map(|n| format!("s{n}")).collect();
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&names[..2]).unwrap(), "s1,s2");
        assert_eq!(
            summary(&names).unwrap(),
            "s1,s2,s3,s4,s5,s6,s7,s8 and 2 more"
        );
    }

    #[test]
    fn the_message_names_five_users_and_counts_all() {
        let users: Vec<String> = (1..=7).map(|n| format!("VNic ns/p{n}")).collect();
        let verdict = in_use(true, &users).unwrap();
        assert_eq!(
            verdict.message,
            "the deletion waits for 7 users: VNic ns/p1, VNic ns/p2, VNic ns/p3, VNic ns/p4, VNic ns/p5 and 2 more; delete them first"
        );
        let one = in_use(true, &users[..1]).unwrap();
        assert!(
            one.message.contains("1 user: VNic ns/p1;"),
            "{}",
            one.message
        );
        assert_eq!(in_use(false, &users), None);
        assert_eq!(in_use(true, &[]), None);
    }
}
