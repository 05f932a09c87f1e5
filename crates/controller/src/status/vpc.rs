//! The status of a `Vpc`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ycloud_api::condition::{self, IN_USE, READY};
use ycloud_api::{Vpc, VpcStatus};

use super::RowState;

/// What is known of a Vpc besides its rows.
#[derive(Debug, Clone, Default)]
pub struct Knowledge {
    /// The EipGateway that it hangs on.
    pub eip_gateway: Option<String>,
    /// Names of its accepted Subnets, sorted.
    pub subnets: Vec<String>,
    /// Neither it nor a Subnet of it names a namespace.
    pub closed: bool,
    /// What a deletion waits for, as [`ycloud_compiler::users`] names it.
    pub users: Vec<String>,
}

/// The status of `vpc`.
pub fn status(vpc: &Vpc, state: &RowState, known: Knowledge, now: &Time) -> VpcStatus {
    let mut conditions = vpc.status.clone().unwrap_or_default().conditions;
    let generation = vpc.metadata.generation;
    let deleting = vpc.metadata.deletion_timestamp.is_some();
    if let Some(mut verdict) = super::ready_or_leaving(deleting, state) {
        if known.closed && verdict.status == Some(true) {
            verdict.message.push_str(
                "; it permits nobody: name namespaces in spec.allowedNamespaces, or in spec.namespaces of one of its Subnets",
            );
        }
        condition::set(&mut conditions, READY, &verdict, generation, now);
    }
    match super::in_use(deleting, &known.users) {
        Some(verdict) => condition::set(&mut conditions, IN_USE, &verdict, generation, now),
        None => conditions.retain(|c| c.type_ != IN_USE),
    }
    VpcStatus {
        router: match state {
            RowState::Refused(_) => None,
            _ => vpc.metadata.name.clone(),
        },
        eip_gateway: match state {
            RowState::Refused(_) | RowState::Hindered(_) => None,
            _ => known.eip_gateway,
        },
        summary: super::summary(&known.subnets),
        subnets: known.subnets,
        conditions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    #[test]
    fn the_same_facts_give_the_same_status_and_a_waiting_deletion_shows() {
        let mut vpc = Vpc::default();
        vpc.metadata.name = Some("vpc1".into());
        let early = Time(Timestamp::from_second(1).unwrap());
        let late = Time(Timestamp::from_second(2).unwrap());
        let known = |closed: bool, users: &[&str]| Knowledge {
            subnets: vec!["s1".to_owned()],
            closed,
            users: users.iter().map(|user| (*user).to_owned()).collect(),
            ..Knowledge::default()
        };
        let closed = status(&vpc, &RowState::Settled, known(true, &[]), &early);
        let message = &closed.conditions[0].message;
        assert!(message.contains("permits nobody"), "{message}");
        let first = status(&vpc, &RowState::Settled, known(false, &[]), &early);
        let message = &first.conditions[0].message;
        assert!(!message.contains("permits nobody"), "{message}");
        assert_eq!(first.router.as_deref(), Some("vpc1"));
        assert!(condition::is_true(&first.conditions, READY));
        vpc.status = Some(first.clone());
        let again = status(&vpc, &RowState::Settled, known(false, &[]), &late);
        assert_eq!(again, first);
        vpc.metadata.deletion_timestamp = Some(late.clone());
        let users = known(false, &["Subnet s1"]);
        let deleting = status(&vpc, &RowState::Settled, users, &late);
        assert!(condition::is_true(&deleting.conditions, IN_USE));
        assert_eq!(deleting.conditions[0].reason, "Deleting");
        assert!(!condition::is_true(&deleting.conditions, READY));
        vpc.status = Some(deleting);
        let free = status(&vpc, &RowState::Settled, known(false, &[]), &late);
        assert!(!free.conditions.iter().any(|c| c.type_ == IN_USE));
    }
}
