//! EipGateways, Eips, and the Services that take one: what is asked of the API server, step by step.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support::{Controller, Server, now, read, vpc};
use uuid::Uuid;
use ycloud_api::{Eip, EipGateway, key};
use ycloud_compiler::row::external_ids;
use ycloud_compiler::{Chassis, Claim, Event, Object, ObjectKey, ObjectRef, Owner};
use ycloud_controller::failover::moves;
use ycloud_controller::objects::Need;
use ycloud_controller::write::Action;
use ycloud_ovsdb::{Operation, Outcome, nb};

pub fn gateway(name: &str, cidr: &str, created: &str) -> Arc<EipGateway> {
    let upstream = cidr.replace(".0/", ".1/");
    let upstream = upstream.split('/').next().unwrap();
    read(&format!(
        "{{apiVersion: iaas.yusur.io/v1, kind: EipGateway,
          metadata: {{name: {name}, uid: u-{name}, resourceVersion: '1', creationTimestamp: '{created}',
            finalizers: [iaas.yusur.io/in-use]}},
          spec: {{cidr: {cidr}, gateway: {upstream}, physicalNetwork: ext, allowedNamespaces: {{selector: {{}}}}}}}}"
    ))
}

pub fn node(name: &str) -> [Object; 2] {
    let node = read(&format!(
        "{{metadata: {{name: {name}, uid: u-{name}}}, status: {{conditions: [{{type: Ready, status: 'True'}}]}}}}"
    ));
    let chassis = Chassis {
        name: name.to_owned(),
        physical_networks: ["ext".to_owned()].into(),
        ..Chassis::default()
    };
    [Object::Node(node), Object::Chassis(chassis)]
}

pub fn service(name: &str, annotations: &str) -> Object {
    Object::Service(read(&format!(
        "{{metadata: {{name: {name}, namespace: ns, uid: u-{name}, resourceVersion: '5',
            annotations: {{iaas.yusur.io/vpc: vpc1{annotations}}}}},
          spec: {{type: LoadBalancer, loadBalancerClass: iaas.yusur.io/eip, clusterIP: 10.96.1.1, clusterIPs: [10.96.1.1],
            ports: [{{name: a, port: 80, protocol: TCP}}]}}}}"
    )))
}

/// A gateway with the EIPs 198.51.100.3 to .6, two nodes, vpc1 with a Subnet, and Service ns/web.
pub fn base() -> Vec<Object> {
    let subnet = read(
        "{apiVersion: iaas.yusur.io/v1, kind: Subnet, metadata: {name: s1}, spec: {vpc: vpc1, cidr: 10.0.1.0/24}}",
    );
    let mut objects = vec![
        Object::EipGateway(gateway("gw", "198.51.100.0/29", "2026-01-01T00:00:00Z")),
        vpc("ovn-cluster"),
        vpc("vpc1"),
        Object::Subnet(subnet),
        service("web", ""),
    ];
    objects.extend(node("node-1"));
    objects.extend(node("node-2"));
    objects
}

pub fn eip_owner(name: &str) -> Owner {
    Owner::Eip(ObjectKey::new("ns", name))
}

pub fn web() -> Owner {
    Owner::Service(ObjectKey::new("ns", "web"))
}

pub fn next(controller: &mut Controller, owner: &Owner) -> Option<Need> {
    controller.state.next_write(owner, &now())
}

/// The Eip as the API server would store it.
pub fn stored(mut eip: Eip, version: u64) -> Arc<Eip> {
    eip.metadata.uid = Some(format!("u-{}", eip.metadata.name.clone().unwrap()));
    eip.metadata.resource_version = Some(version.to_string());
    Arc::new(eip)
}

pub fn create(controller: &mut Controller, name: &str) -> Arc<Eip> {
    match next(controller, &eip_owner(name)).map(|need| need.action) {
        Some(Action::CreateEip(eip)) => stored(*eip, 10),
        other => panic!("{other:?}"),
    }
}

pub fn take_in(controller: &mut Controller, eip: &Arc<Eip>) {
    let event = Event::Apply(Object::Eip(eip.clone()));
    controller.state.take_in(event);
}

/// The status that is to be written next.
pub fn status(need: &Need) -> &serde_json::Value {
    match &need.action {
        Action::Patch {
            patch,
            subresource: Some("status"),
            ..
        } => &patch["status"],
        other => panic!("{other:?}"),
    }
}

/// Asks for the status that is to be written next, and returns the Eip as the API server would store it then.
pub fn written(controller: &mut Controller, eip: &Eip, version: u64) -> Arc<Eip> {
    let name = eip.metadata.name.clone().unwrap();
    let need = next(controller, &eip_owner(&name)).expect("no status");
    let mut eip = eip.clone();
    let mut all = serde_json::to_value(eip.status.clone().unwrap_or_default()).unwrap();
    for (field, value) in status(&need).as_object().unwrap() {
        all[field] = value.clone();
    }
    eip.status = Some(serde_json::from_value(all).unwrap());
    eip.metadata.resource_version = Some(version.to_string());
    Arc::new(eip)
}

#[tokio::test]
async fn a_service_gets_an_eip_of_its_own_and_says_its_address_once_that_is_sure() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &base()).await;
    controller.settle().await;
    let eip = create(&mut controller, "web");
    let owners = eip.metadata.owner_references.as_ref().unwrap();
    assert_eq!(
        (owners[0].kind.as_str(), owners[0].uid.as_str()),
        ("Service", "u-web")
    );
    assert_eq!(
        eip.metadata.finalizers,
        Some(vec![key::IN_USE_FINALIZER.to_owned()])
    );
    take_in(&mut controller, &eip);
    controller.settle().await;
    assert_eq!(next(&mut controller, &web()), None, "no address yet");
    let addressed = written(&mut controller, &eip, 20);
    let address = addressed.status.clone().unwrap().address;
    assert_eq!(address.as_deref(), Some("198.51.100.3"));
    // What is not confirmed is told to nobody.
    controller.settle().await;
    assert_eq!(next(&mut controller, &web()), None);
    take_in(&mut controller, &addressed);
    controller.settle().await;
    let need = next(&mut controller, &web()).expect("no address");
    let ingress = &status(&need)["loadBalancer"]["ingress"];
    assert_eq!(
        ingress,
        &serde_json::json!([{"ip": "198.51.100.3", "ipMode": "VIP"}])
    );
    let need = next(&mut controller, &eip_owner("web")).expect("not bound");
    assert_eq!(status(&need)["phase"], "Bound");
    assert_eq!(status(&need)["boundTo"], serde_json::json!(["Service/web"]));
    assert_eq!(status(&need)["vpc"], "vpc1");
    let before = controller.content();
    // The Service names another Eip: the one that was made for it goes.
    controller
        .state
        .take_in(Event::Apply(service("web", ", iaas.yusur.io/eip: other")));
    controller.settle().await;
    let action = next(&mut controller, &eip_owner("web")).unwrap().action;
    assert_eq!(
        action,
        Action::DeleteEip {
            uid: Some("u-web".into())
        }
    );
    controller.state.take_in(Event::Apply(service("web", "")));
    controller.settle().await;
    assert_eq!(controller.content(), before);
}

#[tokio::test]
async fn a_service_that_is_no_load_balancer_any_more_gives_its_eip_back() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &base()).await;
    controller.settle().await;
    let eip = create(&mut controller, "web");
    take_in(&mut controller, &eip);
    let addressed = written(&mut controller, &eip, 20);
    take_in(&mut controller, &addressed);
    controller.settle().await;
    let inside = |status: &str, finalizers: &str| {
        Object::Service(read(&format!(
            "{{metadata: {{name: web, namespace: ns, uid: u-web, resourceVersion: '6', finalizers: [{finalizers}],
                annotations: {{iaas.yusur.io/vpc: vpc1}}}},
              spec: {{type: ClusterIP, clusterIP: 10.96.1.1, clusterIPs: [10.96.1.1],
                ports: [{{name: a, port: 80, protocol: TCP}}]}}, status: {{loadBalancer: {{{status}}}}}}}"
        )))
    };
    let shown = "ingress: [{ip: 198.51.100.3, ipMode: VIP}]";
    controller.state.take_in(Event::Apply(inside(shown, "")));
    controller.settle().await;
    let need = next(&mut controller, &web()).expect("the address stays");
    assert_eq!(
        status(&need)["loadBalancer"]["ingress"],
        serde_json::json!([])
    );
    let action = next(&mut controller, &eip_owner("web")).unwrap().action;
    let uid = Some("u-web".into());
    assert_eq!(action, Action::DeleteEip { uid });
    // Somebody else's.
    let theirs = inside(shown, "service.kubernetes.io/load-balancer-cleanup");
    controller.state.take_in(Event::Apply(theirs));
    assert_eq!(next(&mut controller, &web()), None);
    controller.state.take_in(Event::Apply(inside("", "")));
    assert_eq!(next(&mut controller, &web()), None);
}

#[tokio::test]
async fn who_gets_no_eip_says_why_and_gets_the_one_that_is_released() {
    let server = Server::start().await;
    let mut objects = base();
    objects.retain(|object| !matches!(object, Object::Service(_)));
    let mut controller = Controller::start(&server, &objects).await;
    let named = |name: &str, address: &str| -> Arc<Eip> {
        read(&format!(
            "{{apiVersion: iaas.yusur.io/v1, kind: Eip, metadata: {{name: {name}, namespace: ns, uid: u-{name},
                resourceVersion: '10', finalizers: [iaas.yusur.io/in-use]}}, spec: {{{address}}}}}"
        ))
    };
    let mut held = Vec::new();
    for n in 3..7 {
        let eip = named(&format!("e{n}"), "");
        take_in(&mut controller, &eip);
        let eip = written(&mut controller, &eip, 20);
        assert_eq!(
            eip.status.clone().unwrap().address,
            Some(format!("198.51.100.{n}"))
        );
        take_in(&mut controller, &eip);
        held.push(eip);
    }
    controller.settle().await;
    for (name, address, reason, words) in [
        ("full", "", "AddressesExhausted", "gw (198.51.100.0/29)"),
        (
            "taken",
            "address: 198.51.100.4",
            "AddressTaken",
            "Eip ns/e4",
        ),
        (
            "outside",
            "address: 203.0.113.9",
            "AddressNotInSubnet",
            "198.51.100.0/29",
        ),
        (
            "upstream",
            "address: 198.51.100.1",
            "AddressNotInSubnet",
            "upstream router",
        ),
    ] {
        let eip = named(name, address);
        take_in(&mut controller, &eip);
        controller.settle().await;
        let need = next(&mut controller, &eip_owner(name)).unwrap();
        let report = need.report.clone().expect("no Event");
        assert_eq!(
            (report.reason.as_str(), report.warning),
            (reason, true),
            "{name}"
        );
        assert!(report.message.contains(words), "{}", report.message);
        assert_eq!(status(&need)["phase"], "Failed");
        assert_eq!(status(&need)["conditions"][0]["reason"], reason);
        if name != "full" {
            controller
                .state
                .take_in(Event::Delete(ObjectRef::Eip(ObjectKey::new("ns", name))));
        }
    }
    controller
        .state
        .take_in(Event::Delete(ObjectRef::Eip(ObjectKey::new("ns", "e5"))));
    let full = written(&mut controller, &named("full", ""), 30);
    assert_eq!(
        full.status.clone().unwrap().address.as_deref(),
        Some("198.51.100.5")
    );
}

#[tokio::test]
async fn a_gateway_that_cannot_be_says_why_and_one_in_use_stays() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &base()).await;
    controller.settle().await;
    let of = |name: &str| Owner::EipGateway(name.to_owned());
    let need = next(&mut controller, &of("gw")).unwrap();
    let good = status(&need).clone();
    assert_eq!(good["conditions"][0]["status"], "True");
    assert_eq!(good["nodes"], serde_json::json!(["node-1", "node-2"]));
    assert_eq!(good["addresses"]["total"], 4);
    let before = controller.content();
    let newer = gateway("newer", "198.51.100.0/24", "2026-01-02T00:00:00Z");
    controller
        .state
        .take_in(Event::Apply(Object::EipGateway(newer)));
    controller.settle().await;
    let need = next(&mut controller, &of("newer")).unwrap();
    assert_eq!(status(&need)["conditions"][0]["reason"], "Overlaps");
    assert_eq!(need.report.unwrap().reason, "Overlaps");
    assert_eq!(
        controller.content(),
        before,
        "it changes nothing for others"
    );
    let mut nowhere = EipGateway::clone(&gateway(
        "nowhere",
        "203.0.113.0/24",
        "2026-01-03T00:00:00Z",
    ));
    nowhere.spec.physical_network = "lan".to_owned();
    controller
        .state
        .take_in(Event::Apply(Object::EipGateway(Arc::new(nowhere))));
    controller.settle().await;
    let need = next(&mut controller, &of("nowhere")).unwrap();
    assert_eq!(status(&need)["conditions"][0]["reason"], "NoNodes");
    let with_it = controller.content();
    assert!(
        before.iter().all(|row| with_it.contains(row)),
        "it changes nothing for others"
    );
    for name in ["newer", "nowhere"] {
        controller
            .state
            .take_in(Event::Delete(ObjectRef::EipGateway(name.to_owned())));
    }
    controller.settle().await;
    assert_eq!(controller.content(), before);
    // Deleted while an Eip holds an address of it.
    let eip = create(&mut controller, "web");
    take_in(&mut controller, &eip);
    let eip = written(&mut controller, &eip, 20);
    take_in(&mut controller, &eip);
    controller.settle().await;
    let before = controller.content();
    let mut deleted = EipGateway::clone(&gateway("gw", "198.51.100.0/29", "2026-01-01T00:00:00Z"));
    deleted.metadata.deletion_timestamp = Some(now());
    deleted.metadata.resource_version = Some("2".into());
    controller
        .state
        .take_in(Event::Apply(Object::EipGateway(Arc::new(deleted))));
    controller.settle().await;
    let need = next(&mut controller, &of("gw")).unwrap();
    let conditions = status(&need)["conditions"].as_array().unwrap().clone();
    let in_use = conditions.iter().find(|c| c["type"] == "InUse").unwrap();
    assert!(
        in_use["message"]
            .as_str()
            .unwrap()
            .contains("Eip ns/web (198.51.100.3)")
    );
    assert_eq!(controller.content(), before);
}

#[tokio::test]
async fn two_replicas_move_a_service_gateway_once() {
    let server = Server::start().await;
    let controller = Controller::start(&server, &[]).await;
    let owner = Owner::EipGateway("gw".to_owned());
    let (member, group, router) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
    let rows = vec![
        Operation::insert(
            nb::HaChassis::TABLE,
            member,
            nb::HaChassis::new().chassis_name("node-2"),
        ),
        Operation::insert(
            nb::HaChassisGroup::TABLE,
            group,
            nb::HaChassisGroup::new()
                .name("sg/gw/1")
                .ha_chassis([member]),
        ),
        Operation::insert(
            nb::LogicalRouter::TABLE,
            router,
            nb::LogicalRouter::new()
                .name("sg/gw/1")
                .options([("chassis", "node-1"), ("lb_force_snat_ip", "100.83.255.1")])
                .external_ids(external_ids(&owner, "sg")),
        ),
    ];
    let outcome = controller.client.transact(rows).await.unwrap();
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    let claim = Claim {
        group: "sg/gw/1".to_owned(),
        chassis: "node-2".to_owned(),
    };
    let claims = BTreeMap::from([(claim.group.clone(), claim)]);
    let seen_by_both = moves(&controller.client.snapshot(), &claims);
    let first = controller
        .client
        .transact(seen_by_both[0].operations())
        .await;
    let second = controller
        .client
        .transact(seen_by_both[0].operations())
        .await;
    assert!(matches!(first, Ok(Outcome::Committed(_))), "{first:?}");
    assert!(matches!(second, Ok(Outcome::Conflict { .. })), "{second:?}");
    assert_eq!(controller.nb_cfg(), 1);
    let rows = controller.rows(nb::LogicalRouter::TABLE);
    let options = nb::LogicalRouter::of(&rows[0]).options();
    assert_eq!(options.get("chassis"), Some("node-2"));
    assert_eq!(options.get("lb_force_snat_ip"), Some("100.83.255.1"));
    assert_eq!(moves(&controller.client.snapshot(), &claims), []);
}
