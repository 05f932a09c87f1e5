//! The condition of a `Service`.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use ycloud_api::condition::{self, OURS_IGNORED, Verdict, reason};

use super::RowState;

/// The condition type on a Service.
pub const ACCEPTED: &str = condition::OURS_ACCEPTED;

/// The conditions that `service` shall have of this controller, and those that are news, if that differs from what it has.
/// `ignored`: what its EIP looks past, in words.
pub fn conditions(
    service: &Service,
    state: &RowState,
    ignored: Option<String>,
    now: &Time,
) -> Option<(Vec<Condition>, Vec<Condition>)> {
    let former = |kind: &str| {
        let status = service.status.as_ref()?;
        let mut all = status.conditions.iter().flatten();
        all.find(|c| c.type_ == kind).cloned()
    };
    let accepted = condition(service, state, now);
    let looked_past = former(OURS_IGNORED);
    let ignored = ignored.and_then(|text| {
        let mut conditions: Vec<Condition> = looked_past.iter().cloned().collect();
        let verdict = Verdict::yes(reason::IGNORED, text);
        condition::set(&mut conditions, OURS_IGNORED, &verdict, None, now);
        conditions.pop()
    });
    if accepted.is_none() && ignored == looked_past {
        return None;
    }
    let of_ignored = ignored
        .clone()
        .filter(|new| Some(new) != looked_past.as_ref());
    let news = accepted.iter().cloned().chain(of_ignored).collect();
    let all = accepted
        .or_else(|| former(ACCEPTED))
        .into_iter()
        .chain(ignored);
    Some((all.collect(), news))
}

/// The condition Accepted that `service` shall have; `None`: none, or leave what it has. A Service that was never refused gets
/// none, so that Services of others are left alone.
fn condition(service: &Service, state: &RowState, now: &Time) -> Option<Condition> {
    let status = service.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let former = conditions.and_then(|all| all.iter().find(|c| c.type_ == ACCEPTED));
    let verdict = match state {
        RowState::Pending => return None,
        // Its Eip is about to come.
        RowState::Hindered(rejection) if rejection.reason == reason::PENDING => return None,
        RowState::Settled => {
            former?;
            Verdict::yes(reason::ACCEPTED, "the Service is valid")
        }
        RowState::Refused(rejection) | RowState::Hindered(rejection) => {
            Verdict::no(rejection.reason, &rejection.message)
        }
        RowState::Failing(why) => Verdict::no(
            reason::REFUSED,
            format!("the Northbound database refuses its rows and is asked again: {why}"),
        ),
    };
    let mut conditions: Vec<Condition> = former.cloned().into_iter().collect();
    let generation = former.and_then(|c| c.observed_generation);
    condition::set(&mut conditions, ACCEPTED, &verdict, generation, now);
    conditions.pop().filter(|new| former != Some(new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ServiceStatus;
    use k8s_openapi::jiff::Timestamp;
    use ycloud_compiler::Rejection;

    #[test]
    fn what_an_eip_looks_past_is_said_beside_all_else() {
        let now = Time(Timestamp::from_second(1).unwrap());
        let mut service = Service::default();
        let text = || Some("the EIP looks past spec.loadBalancerIP".to_owned());
        let types =
            |all: &[Condition]| -> Vec<String> { all.iter().map(|c| c.type_.clone()).collect() };
        assert_eq!(conditions(&service, &RowState::Settled, None, &now), None);
        let (all, news) = conditions(&service, &RowState::Settled, text(), &now).unwrap();
        assert_eq!(
            (types(&all), all.len()),
            (vec![OURS_IGNORED.to_owned()], news.len())
        );
        let status = |conditions: Vec<Condition>| ServiceStatus {
            conditions: Some(conditions),
            ..ServiceStatus::default()
        };
        service.status = Some(status(all));
        assert_eq!(conditions(&service, &RowState::Settled, text(), &now), None);
        let refused = RowState::Refused(Rejection::new(reason::NOT_FOUND, "no Vpc"));
        let (all, news) = conditions(&service, &refused, text(), &now).unwrap();
        assert_eq!(types(&all), [ACCEPTED, OURS_IGNORED]);
        assert_eq!(types(&news), [ACCEPTED]);
        service.status = Some(status(all));
        let (all, news) = conditions(&service, &refused, None, &now).unwrap();
        assert_eq!((types(&all), news.len()), (vec![ACCEPTED.to_owned()], 0));
    }

    #[test]
    fn only_a_refused_service_gets_a_condition_and_it_is_taken_back() {
        let now = Time(Timestamp::from_second(1).unwrap());
        let mut service = Service::default();
        assert_eq!(condition(&service, &RowState::Settled, &now), None);
        let rejection = Rejection::new(
            reason::NOT_FOUND,
            "annotation names Vpc vpc9, which does not exist",
        );
        let refused = RowState::Refused(rejection);
        let no = condition(&service, &refused, &now).unwrap();
        assert_eq!(
            (no.status.as_str(), no.reason.as_str()),
            ("False", "NotFound")
        );
        service.status = Some(ServiceStatus {
            conditions: Some(vec![no]),
            ..ServiceStatus::default()
        });
        assert_eq!(condition(&service, &refused, &now), None, "unchanged");
        let yes = condition(&service, &RowState::Settled, &now).unwrap();
        assert_eq!(yes.status, "True");
    }
}
