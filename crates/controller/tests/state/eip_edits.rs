//! Services with an EIP that are edited, refused and accepted again: what becomes of the Eip, and when the Service counts as
//! programmed.

use std::sync::Arc;

use crate::gateways::{
    base, create, eip_owner, gateway, next, service, stored, take_in, web, written,
};
use crate::support::{Controller, Server, read};
use ycloud_api::{Eip, key};
use ycloud_compiler::{Event, Object, ObjectKey, Owner};
use ycloud_controller::status::RowState;
use ycloud_controller::write::Action;

/// [`base`] with a second gateway that no Vpc hangs on.
fn two_gateways() -> Vec<Object> {
    let mut objects = base();
    let other = gateway("other", "203.0.113.0/29", "2026-01-02T00:00:00Z");
    objects.push(Object::EipGateway(other));
    objects
}

const ASKS_FOR_OTHER: &str = ", iaas.yusur.io/eip-gateway: other";

/// Service ns/web with the label of YusurServices' own, which show when they are programmed.
fn labelled(annotations: &str) -> Object {
    let Object::Service(mut web) = service("web", annotations) else {
        panic!("no Service")
    };
    let labels = &mut Arc::make_mut(&mut web).metadata.labels;
    let labels = labels.get_or_insert_default();
    labels.insert(key::SERVICE_PROXY_NAME.to_owned(), key::PROXY.to_owned());
    Object::Service(web)
}

fn refused(controller: &mut Controller) -> Option<&'static str> {
    let state = ycloud_compiler::hindrance(&controller.state.snapshot, &web());
    state.map(|rejection| rejection.reason)
}

async fn edit(controller: &mut Controller, service: Object) {
    controller.state.take_in(Event::Apply(service));
    controller.settle().await;
}

/// Makes the Eip of Service ns/web and gives it its address.
async fn addressed(controller: &mut Controller) -> Arc<Eip> {
    let eip = create(controller, "web");
    take_in(controller, &eip);
    let eip = written(controller, &eip, 20);
    take_in(controller, &eip);
    controller.settle().await;
    eip
}

#[tokio::test]
async fn an_eip_made_of_the_wrong_gateway_is_made_anew_once_another_is_asked_for() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &two_gateways()).await;
    edit(&mut controller, service("web", ASKS_FOR_OTHER)).await;
    let eip = addressed(&mut controller).await;
    assert_eq!(eip.spec.eip_gateway.as_deref(), Some("other"));
    assert_eq!(refused(&mut controller), Some("OtherGateway"));
    let need = next(&mut controller, &eip_owner("web"));
    let deletes = |need: &Option<_>| matches!(need, Some(Action::DeleteEip { .. }));
    let action = need.map(|need| need.action);
    assert!(!deletes(&action), "nothing better is asked for: {action:?}");

    edit(&mut controller, service("web", "")).await;
    let action = next(&mut controller, &eip_owner("web")).map(|need| need.action);
    assert!(deletes(&action), "{action:?}");
    let gone = ycloud_compiler::ObjectRef::Eip(ObjectKey::new("ns", "web"));
    controller.state.take_in(Event::Delete(gone));
    controller.settle().await;
    let eip = addressed(&mut controller).await;
    assert_eq!(eip.spec.eip_gateway.as_deref(), Some("gw"));
    assert_eq!(refused(&mut controller), None);
}

#[tokio::test]
async fn a_wrong_edit_does_not_cost_the_address() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &two_gateways()).await;
    controller.settle().await;
    addressed(&mut controller).await;
    let before = controller.content();
    edit(&mut controller, service("web", ASKS_FOR_OTHER)).await;
    assert_eq!(refused(&mut controller), Some("OtherGateway"));
    let action = next(&mut controller, &eip_owner("web")).map(|need| need.action);
    assert!(
        !matches!(action, Some(Action::DeleteEip { .. })),
        "{action:?}"
    );
    edit(&mut controller, service("web", "")).await;
    assert_eq!(controller.content(), before);
}

/// Every hypervisor has all that was written.
fn catch_up(controller: &mut Controller) {
    let nb_cfg = controller.nb_cfg();
    for node in ["node-1", "node-2"] {
        controller.state.tracker.lives(node, true);
        controller.state.tracker.chassis(node, Some(nb_cfg));
    }
    controller.state.tracker.advance();
}

fn programmed(controller: &Controller) -> bool {
    controller.state.tracker.programmed(&web()).is_some()
}

#[tokio::test]
async fn a_service_is_not_programmed_before_its_eips_address_is_sure() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &base()).await;
    edit(&mut controller, labelled(", iaas.yusur.io/eip: own")).await;
    let own: Arc<Eip> = read(
        "{apiVersion: iaas.yusur.io/v1, kind: Eip, metadata: {name: own, namespace: ns,
            finalizers: [iaas.yusur.io/in-use]}, spec: {}}",
    );
    let own = stored(Eip::clone(&own), 10);
    take_in(&mut controller, &own);
    controller.settle().await;
    let own = written(&mut controller, &own, 20);
    // The Service is looked at while the API server has not confirmed the address: an endpoint came.
    let slice = read(
        "{metadata: {name: web-1, namespace: ns, labels: {kubernetes.io/service-name: web}}, addressType: IPv4,
          ports: [{name: a, port: 8080, protocol: TCP}], endpoints: [{addresses: [10.0.1.9]}]}",
    );
    controller
        .state
        .take_in(Event::Apply(Object::EndpointSlice(slice)));
    controller.settle().await;
    catch_up(&mut controller);
    assert!(!programmed(&controller), "nothing leads to the EIP yet");

    take_in(&mut controller, &own);
    controller.settle().await;
    let of_eip = controller.state.row_state(&eip_owner("own"));
    assert_eq!(of_eip, &RowState::Settled);
    assert!(!programmed(&controller), "no hypervisor has the route yet");
    catch_up(&mut controller);
    assert!(programmed(&controller));
}

#[tokio::test]
async fn what_was_programmed_once_is_not_believed_after_a_refusal() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &two_gateways()).await;
    edit(&mut controller, labelled("")).await;
    addressed(&mut controller).await;
    catch_up(&mut controller);
    let service = ObjectKey::new("ns", "web");
    let digest = controller.state.snapshot.digest(&service).unwrap();
    let said = format!(", {}: '{digest}'", key::PROGRAMMED);
    edit(&mut controller, labelled(&said)).await;
    assert!(programmed(&controller));
    // Its Vpc hangs on another gateway for a while.
    for (gateway, known) in [("other", false), ("gw", true)] {
        let vpc = read(&format!(
            "{{apiVersion: iaas.yusur.io/v1, kind: Vpc, metadata: {{name: vpc1}}, spec: {{eipGateway: {gateway}, allowedNamespaces: {{selector: {{}}}}}}}}"
        ));
        controller.state.take_in(Event::Apply(Object::Vpc(vpc)));
        controller.settle().await;
        catch_up(&mut controller);
        assert_eq!(programmed(&controller), known, "{gateway}");
        if !known {
            assert!(takes_digest_away(&mut controller, &said));
        }
    }
}

/// Follows the writes of the refused Service until its annotation goes.
fn takes_digest_away(controller: &mut Controller, said: &str) -> bool {
    let Some(Action::ServiceConditions(conditions)) =
        next(controller, &web()).map(|need| need.action)
    else {
        panic!("no condition")
    };
    let Object::Service(mut told) = labelled(said) else {
        panic!("no Service")
    };
    let object = Arc::make_mut(&mut told);
    object.metadata.resource_version = Some("6".to_owned());
    let status = object.status.get_or_insert_default();
    status.conditions = Some(conditions);
    let told = Event::Apply(Object::Service(told));
    controller.state.take_in(told);
    let Some(Action::Patch { patch, .. }) = next(controller, &web()).map(|need| need.action) else {
        panic!("the digest stays")
    };
    patch["metadata"]["annotations"][key::PROGRAMMED].is_null()
}

#[tokio::test]
async fn an_edit_of_the_gateway_alone_wakes_the_eip() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &two_gateways()).await;
    controller.settle().await;
    let edited = Event::Apply(service("web", ASKS_FOR_OTHER));
    let owners = controller.state.snapshot.apply(edited);
    let eip = Owner::Eip(ObjectKey::new("ns", "web"));
    assert!(owners.contains(&eip), "{owners:?}");
}
