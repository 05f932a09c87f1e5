//! The condition of a `Service`.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use ycloud_api::condition::{self, Verdict, reason};

use super::RowState;

/// The condition type on a Service.
pub const ACCEPTED: &str = condition::OURS_ACCEPTED;

/// The condition that `service` shall have; `None`: none, or leave what it has. A Service that was never refused gets
/// none, so that Services of others are left alone.
pub fn condition(service: &Service, state: &RowState, now: &Time) -> Option<Condition> {
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
