//! 1,000 Services with EIPs over 50 Vpcs that all have the same addresses.

use std::sync::Arc;

use ycloud_compiler::{Event, Object, ObjectKey, Snapshot, allocate_eip, wanted_eip};

use super::objects;

pub const VPCS: usize = 50;
pub const SERVICES: usize = 1_000;
pub const PORTS: &[(&str, i32)] = &[("TCP", 80), ("UDP", 53)];

/// Every fifth Service is over several Vpcs: its own and the next one.
pub fn several(n: usize) -> bool {
    n.is_multiple_of(5)
}

/// The Vpc of a Service, or the first of its two.
pub fn vpc_of(n: usize) -> String {
    format!("v{:02}", n % VPCS)
}

/// A Service and its EndpointSlices.
pub fn objects_of(n: usize) -> Vec<Object> {
    let (name, vpc) = (format!("s{n:04}"), vpc_of(n));
    let address = format!("10.96.{}.{}", n / 250, n % 250 + 1);
    let named = (!several(n)).then_some(vpc.as_str());
    let service = objects::service("ns", &name, named, &address, PORTS);
    let mut all = vec![Object::Service(objects::with_eip(
        &service,
        several(n),
        None,
    ))];
    // The same addresses in every Vpc.
    let at = n / VPCS;
    let endpoints = [2, 3].map(|last| (format!("10.0.{at}.{last}"), "ready"));
    let vpcs = match several(n) {
        true => vec![vpc, vpc_of(n + 1)],
        false => vec![vpc],
    };
    for (k, vpc) in vpcs.iter().enumerate() {
        let slice = objects::slice("ns", &format!("{name}-{k}"), &name, PORTS, &endpoints);
        all.push(Object::EndpointSlice(objects::slice_of_vpc(&slice, vpc)));
    }
    all
}

/// One EipGateway, three Nodes, the Vpcs with a Subnet each, and the Services; no Eips.
pub fn world() -> Vec<Object> {
    let mut all = vec![Object::EipGateway(objects::eip_gateway(
        "g1",
        "198.18.0.0/16",
        true,
        1,
    ))];
    all.extend(
        (1..=3).map(|n| Object::Node(objects::node(&format!("n{n}"), &format!("172.31.0.{n}")))),
    );
    for n in 0..VPCS {
        let (vpc, subnet) = (vpc_of(n), format!("sub{n:02}"));
        all.push(Object::Vpc(objects::vpc(&vpc, &[])));
        all.push(Object::Subnet(objects::subnet(
            &subnet,
            &vpc,
            "10.0.0.0/16",
            0,
        )));
    }
    all.extend((0..SERVICES).flat_map(objects_of));
    all
}

/// The Eip that is to be made for a Service, with its address; both forms of it as the controller tells them.
pub fn eip_of(snapshot: &Snapshot, service: &ObjectKey) -> [Event; 2] {
    let eip = wanted_eip(snapshot, service).expect("an Eip to be made");
    let given = allocate_eip(snapshot, &eip).expect("an address");
    let held = objects::eip_given(&eip, &given);
    [Arc::new(eip), held].map(|eip| Event::Apply(Object::Eip(eip)))
}
