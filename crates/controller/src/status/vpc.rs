//! The status of a `Vpc`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ycloud_api::condition::{self, IN_USE, READY};
use ycloud_api::{Vpc, VpcStatus};

use super::RowState;

/// The status of `vpc`. `subnets`: names of its accepted Subnets, sorted. `users`: who uses it.
pub fn status(
    vpc: &Vpc,
    state: &RowState,
    eip_gateway: Option<String>,
    subnets: Vec<String>,
    users: &[String],
    now: &Time,
) -> VpcStatus {
    let mut conditions = vpc.status.clone().unwrap_or_default().conditions;
    let generation = vpc.metadata.generation;
    if let Some(verdict) = super::ready(state) {
        condition::set(&mut conditions, READY, &verdict, generation, now);
    }
    conditions.retain(|c| c.type_ != IN_USE || vpc.metadata.deletion_timestamp.is_some());
    match super::in_use(vpc.metadata.deletion_timestamp.is_some(), users) {
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
            _ => eip_gateway,
        },
        summary: super::summary(&subnets),
        subnets,
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
        let subnets = vec!["s1".to_owned()];
        let first = status(&vpc, &RowState::Settled, None, subnets.clone(), &[], &early);
        assert_eq!(first.router.as_deref(), Some("vpc1"));
        assert!(condition::is_true(&first.conditions, READY));
        vpc.status = Some(first.clone());
        let again = status(&vpc, &RowState::Settled, None, subnets.clone(), &[], &late);
        assert_eq!(again, first);
        vpc.metadata.deletion_timestamp = Some(late.clone());
        let users = ["Subnet s1".to_owned()];
        let deleting = status(
            &vpc,
            &RowState::Settled,
            None,
            subnets.clone(),
            &users,
            &late,
        );
        assert!(condition::is_true(&deleting.conditions, IN_USE));
        vpc.status = Some(deleting);
        let free = status(&vpc, &RowState::Settled, None, subnets, &[], &late);
        assert!(!free.conditions.iter().any(|c| c.type_ == IN_USE));
    }
}
