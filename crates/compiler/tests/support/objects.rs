//! Objects, written short.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, NodeAddress, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ycloud_api::eip::{EipPort, EipStatus};
use ycloud_api::subnet::SubnetIpv6;
use ycloud_api::vnic::VNicIpv6;
use ycloud_api::{Eip, EipGateway, NetworkProbe, Subnet, VNic, Vpc};
use ycloud_compiler::{EipAllocation, Event, Object, ObjectKey, ObjectRef, Prober};

pub fn from<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(
        serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}")),
    )
}

fn time(second: u32) -> String {
    format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60)
}

/// Permits these namespaces; all, if none is named.
pub fn vpc(name: &str, allowed: &[&str]) -> Arc<Vpc> {
    let allowed = match allowed.is_empty() {
        true => json!({"selector": {}}),
        false => json!({"names": allowed}),
    };
    from(
        json!({"apiVersion": "iaas.yusur.io/v1", "kind": "Vpc", "metadata": {"name": name}, "spec": {"allowedNamespaces": allowed}}),
    )
}

pub fn subnet(name: &str, vpc: &str, cidr: &str, created: u32) -> Arc<Subnet> {
    from(json!({
        "apiVersion": "iaas.yusur.io/v1", "kind": "Subnet", "metadata": {"name": name, "creationTimestamp": time(created)},
        "spec": {"vpc": vpc, "cidr": cidr},
    }))
}

pub fn vnic(
    namespace: &str,
    name: &str,
    subnet: &str,
    chassis: Option<&str>,
    ip: Option<&str>,
) -> Arc<VNic> {
    from(json!({
        "apiVersion": "iaas.yusur.io/v1", "kind": "VNic",
        "metadata": {"namespace": namespace, "name": name, "creationTimestamp": time(0)},
        "spec": {"subnet": subnet, "attachment": {"kind": if chassis.is_some() {"Pod"} else {"VM"}, "chassis": chassis}},
        "status": {"ip": ip},
    }))
}

/// A VNic as it is once it has an address: `set_up` is its range and gateway.
pub fn vnic_set_up(vnic: &VNic, set_up: (u8, &str)) -> Arc<VNic> {
    let mut vnic = vnic.clone();
    if let Some(status) = vnic.status.as_mut() {
        status.prefix_length = Some(set_up.0.into());
        status.gateway = Some(set_up.1.to_owned());
    }
    Arc::new(vnic)
}

/// A VNic with an IPv6 address too.
pub fn vnic_ipv6(vnic: &VNic, ip: &str) -> Arc<VNic> {
    let mut vnic = vnic.clone();
    let net = ip.rsplit_once("::").map_or(ip, |(net, _)| net);
    let status = vnic.status.get_or_insert_default();
    status.ipv6 = Some(VNicIpv6 {
        ip: ip.to_owned(),
        prefix_length: 64,
        gateway: format!("{net}::1"),
    });
    Arc::new(vnic)
}

/// A Subnet with an IPv6 range; without IPv4 if `cidr` is empty.
pub fn subnet_ipv6(subnet: &Subnet, cidr: &str) -> Arc<Subnet> {
    let mut subnet = subnet.clone();
    subnet.spec.cidr = subnet.spec.cidr.filter(|cidr| !cidr.is_empty());
    subnet.spec.ipv6 = Some(SubnetIpv6 {
        cidr: cidr.to_owned(),
        gateway: None,
    });
    Arc::new(subnet)
}

pub fn node_vnic(node: &str, ip: &str) -> Arc<VNic> {
    from(json!({
        "apiVersion": "iaas.yusur.io/v1", "kind": "VNic", "metadata": {"namespace": "ycloud-system", "name": node},
        "spec": {"subnet": "subnet0", "attachment": {"kind": "Node", "name": node, "chassis": node}}, "status": {"ip": ip},
    }))
}

pub fn node(name: &str, address: &str) -> Arc<Node> {
    from(json!({
        "metadata": {"name": name, "uid": format!("uid-{name}")},
        "status": {"addresses": [{"type": "InternalIP", "address": address}], "conditions": [{"type": "Ready", "status": "True"}]},
    }))
}

/// A node with the label `role`, or without.
pub fn labelled_node(name: &str, address: &str, role: Option<&str>) -> Arc<Node> {
    let mut node = node(name, address);
    let labels = role.map(|role| BTreeMap::from([("role".to_owned(), role.to_owned())]));
    Arc::make_mut(&mut node).metadata.labels = labels;
    node
}

pub fn namespace(name: &str, labels: &[(&str, &str)]) -> Arc<Namespace> {
    let labels: BTreeMap<_, _> = labels.iter().copied().collect();
    from(json!({"metadata": {"name": name, "labels": labels}}))
}

pub fn pod(
    namespace: &str,
    name: &str,
    node: Option<&str>,
    annotations: &[(&str, &str)],
) -> Arc<Pod> {
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    from(json!({
        "metadata": {"namespace": namespace, "name": name, "uid": "12345678-1234", "annotations": annotations},
        "spec": {"nodeName": node, "containers": []},
    }))
}

/// Ports are `protocol`, `port`; the port's name is `protocol-port` in lower case.
pub fn service(
    namespace: &str,
    name: &str,
    vpc: Option<&str>,
    ip: &str,
    ports: &[(&str, i32)],
) -> Arc<Service> {
    let ports: Vec<Value> = ports
        .iter()
        .map(|(protocol, port)| json!({"name": port_name(protocol, *port), "protocol": protocol, "port": port}))
        .collect();
    let annotations = vpc.map(|vpc| json!({"iaas.yusur.io/vpc": vpc}));
    from(json!({
        "metadata": {"namespace": namespace, "name": name, "annotations": annotations},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": ports},
    }))
}

/// A Service of the default Vpc with `spec.externalIPs`.
pub fn service_external(
    namespace: &str,
    name: &str,
    ip: &str,
    external: &[&str],
    ports: &[(&str, i32)],
) -> Arc<Service> {
    let mut service = service(namespace, name, None, ip, ports);
    if let Some(spec) = &mut Arc::make_mut(&mut service).spec {
        spec.external_ips = Some(external.iter().map(|&ip| ip.to_owned()).collect());
    }
    service
}

pub fn port_name(protocol: &str, port: i32) -> String {
    format!("{}-{port}", protocol.to_lowercase())
}

/// An EipGateway with that range, whose upstream router has the first address.
pub fn eip_gateway(name: &str, cidr: &str, default: bool, created: u32) -> Arc<EipGateway> {
    let upstream = cidr.split('/').next().unwrap_or_default();
    let upstream = format!("{}1", upstream.trim_end_matches('0'));
    from(json!({
        "apiVersion": "iaas.yusur.io/v1", "kind": "EipGateway",
        "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z")},
        "spec": {"cidr": cidr, "gateway": upstream, "physicalNetwork": "ext", "default": default,
            "serviceGateways": 1 + created % 2, "allowedNamespaces": {"selector": {}}},
    }))
}

/// The EipGateway, with this `spec.allowedNamespaces`.
pub fn eip_gateway_for(gateway: &EipGateway, allowed: Value) -> Arc<EipGateway> {
    let mut gateway = gateway.clone();
    gateway.spec.allowed_namespaces = serde_json::from_value(allowed).expect("AllowedNamespaces");
    Arc::new(gateway)
}

/// The EipGateway, to which its upstream router routes the range over this link.
pub fn eip_gateway_behind(gateway: &EipGateway, upstream: &str, address: &str) -> Arc<EipGateway> {
    let mut gateway = gateway.clone();
    gateway.spec.gateway = upstream.to_owned();
    gateway.spec.address = Some(address.to_owned());
    Arc::new(gateway)
}

/// An EipGateway that only nodes of that label `role` can carry, reached over a link of its own.
pub fn eip_gateway_on(name: &str, cidr: &str, role: &str) -> Arc<EipGateway> {
    from(json!({
        "apiVersion": "iaas.yusur.io/v1", "kind": "EipGateway",
        "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:01Z"},
        "spec": {"cidr": cidr, "gateway": "192.0.2.1", "address": "192.0.2.2/24", "physicalNetwork": "ext",
            "allowedNamespaces": {"selector": {}},
            "nodeSelector": {"matchLabels": {"role": role}}},
    }))
}

/// An Eip; `held` is the address in its status.
pub fn eip(
    namespace: &str,
    name: &str,
    gateway: Option<&str>,
    asked: Option<&str>,
    held: Option<&str>,
) -> Arc<Eip> {
    let status = held.map(|ip| json!({"address": ip, "eipGateway": gateway.unwrap_or("g1")}));
    from(json!({
        "apiVersion": "iaas.yusur.io/v1", "kind": "Eip",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"eipGateway": gateway, "address": asked}, "status": status,
    }))
}

/// The Eip, with the address that it was given.
pub fn eip_given(eip: &Eip, given: &EipAllocation) -> Arc<Eip> {
    let mut eip = eip.clone();
    eip.status = Some(EipStatus {
        address: Some(given.address.to_string()),
        eip_gateway: Some(given.eip_gateway.clone()),
        ..EipStatus::default()
    });
    Arc::new(eip)
}

/// The same Service, reached by an EIP.
pub fn with_eip(service: &Service, several: bool, eip: Option<&str>) -> Arc<Service> {
    let mut service = service.clone();
    let annotations = service.metadata.annotations.get_or_insert_default();
    if several {
        annotations.insert("iaas.yusur.io/scope".to_owned(), "multiVpc".to_owned());
    }
    if let Some(eip) = eip {
        annotations.insert("iaas.yusur.io/eip".to_owned(), eip.to_owned());
    }
    let spec = service.spec.get_or_insert_default();
    spec.type_ = Some("LoadBalancer".to_owned());
    spec.load_balancer_class = Some("iaas.yusur.io/eip".to_owned());
    spec.load_balancer_source_ranges = several.then(|| vec!["203.0.113.0/24".to_owned()]);
    Arc::new(service)
}

/// The same EndpointSlice, of a Vpc.
pub fn slice_of_vpc(slice: &EndpointSlice, vpc: &str) -> Arc<EndpointSlice> {
    let mut slice = slice.clone();
    let labels = slice.metadata.labels.get_or_insert_default();
    labels.insert("iaas.yusur.io/vpc".to_owned(), vpc.to_owned());
    Arc::new(slice)
}

/// Endpoints are `address`, `state`: one of ready, unready, draining.
pub fn slice(
    namespace: &str,
    name: &str,
    service: &str,
    ports: &[(&str, i32)],
    endpoints: &[(String, &str)],
) -> Arc<EndpointSlice> {
    let ports: Vec<Value> = ports
        .iter()
        .map(|(protocol, port)| json!({"name": port_name(protocol, *port), "protocol": protocol, "port": port + 1000}))
        .collect();
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(ip, state)| {
            let conditions = match *state {
                "ready" => json!({"ready": true}),
                "draining" => json!({"ready": false, "serving": true, "terminating": true}),
                _ => json!({"ready": false}),
            };
            json!({"addresses": [ip], "conditions": conditions})
        })
        .collect();
    from(json!({
        "metadata": {"namespace": namespace, "name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    }))
}

/// The slice, which says that the connections of these backends end.
pub fn slice_ended(slice: &EndpointSlice, ended: &[&str]) -> Arc<EndpointSlice> {
    let mut slice = slice.clone();
    let annotations = slice.metadata.annotations.get_or_insert_default();
    annotations.insert("iaas.yusur.io/ended".to_owned(), ended.join(","));
    Arc::new(slice)
}

pub fn service_cidr(name: &str, cidr: &str) -> Arc<ServiceCIDR> {
    from(json!({"metadata": {"name": name}, "spec": {"cidrs": [cidr]}}))
}

/// A Service of the default Vpc whose cluster address leads only to the client's own node.
pub fn service_local(namespace: &str, name: &str, ip: &str, ports: &[(&str, i32)]) -> Arc<Service> {
    let mut service = service(namespace, name, None, ip, ports);
    if let Some(spec) = &mut Arc::make_mut(&mut service).spec {
        spec.internal_traffic_policy = Some("Local".to_owned());
    }
    service
}

/// A slice whose endpoints are all on one node.
pub fn slice_on(slice: &EndpointSlice, node: &str) -> Arc<EndpointSlice> {
    let mut slice = slice.clone();
    for endpoint in &mut slice.endpoints {
        endpoint.node_name = Some(node.to_owned());
    }
    Arc::new(slice)
}

/// The same Service with a cluster address of IPv6 too.
pub fn with_ipv6(service: &Service, ip: &str) -> Arc<Service> {
    let mut service = service.clone();
    let spec = service.spec.get_or_insert_default();
    spec.cluster_ips.get_or_insert_default().push(ip.to_owned());
    Arc::new(service)
}

/// The same Node with an address of IPv6 too.
pub fn node_with_ipv6(node: &Node, ip: &str) -> Arc<Node> {
    let mut node = node.clone();
    let status = node.status.get_or_insert_default();
    status.addresses.get_or_insert_default().push(NodeAddress {
        address: ip.to_owned(),
        type_: "InternalIP".to_owned(),
    });
    Arc::new(node)
}

/// The same slice for IPv6: the last number of each address stays, at a node or in a network of IPv6.
pub fn slice_ipv6(slice: &EndpointSlice) -> Arc<EndpointSlice> {
    let mut slice = slice.clone();
    slice.address_type = "IPv6".to_owned();
    let addresses = slice.endpoints.iter_mut().flat_map(|e| &mut e.addresses);
    for address in addresses.filter(|address| !address.contains(':')) {
        let last = address.rsplit('.').next().unwrap_or_default().to_owned();
        let network = match address.starts_with("172.") {
            true => "fd00:172",
            false => "fd00:10",
        };
        *address = format!("{network}::{last}");
    }
    Arc::new(slice)
}

/// A NetworkProbe that asks this address.
pub fn probe(namespace: &str, name: &str, vpc: &str, ip: &str) -> Arc<NetworkProbe> {
    from(json!({
        "apiVersion": "iaas.yusur.io/v1", "kind": "NetworkProbe", "metadata": {"namespace": namespace, "name": name},
        "spec": {"target": {"vpc": vpc, "ip": ip, "port": 80}},
    }))
}

/// The NetworkProbe that asks whether a chassis is there, at the address with the last number `n`, and what `by` found.
pub fn chassis_probe(chassis: &str, by: &str, state: &str, n: u8) -> Arc<NetworkProbe> {
    from(json!({
        "apiVersion": "iaas.yusur.io/v1", "kind": "NetworkProbe",
        "metadata": {
            "namespace": "ycloud-system", "name": format!("chassis-{chassis}"),
            "labels": {"iaas.yusur.io/chassis-probe": "ycloud-controller"},
        },
        "spec": {"target": {"name": chassis, "vpc": "ovn-cluster", "ip": format!("100.70.0.{n}")}, "icmp": {}},
        "status": {"state": state, "prober": by, "roundTripMicroseconds": 300},
    }))
}

/// A chassis asks NetworkProbes.
pub fn prober(chassis: &str) -> Prober {
    Prober {
        chassis: chassis.to_owned(),
    }
}

/// The same VNic, bound by a chassis.
pub fn vnic_bound(vnic: &VNic, chassis: &str) -> Arc<VNic> {
    let mut vnic = vnic.clone();
    vnic.status.get_or_insert_default().chassis = Some(chassis.to_owned());
    Arc::new(vnic)
}

/// The name by which an object is deleted.
pub fn reference(object: &Object) -> ObjectRef {
    let cluster = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
        meta.name.clone().unwrap_or_default()
    };
    let key = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
        ObjectKey::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        )
    };
    match object {
        Object::Vpc(o) => ObjectRef::Vpc(cluster(&o.metadata)),
        Object::Subnet(o) => ObjectRef::Subnet(cluster(&o.metadata)),
        Object::VNic(o) => ObjectRef::VNic(key(&o.metadata)),
        Object::Node(o) => ObjectRef::Node(cluster(&o.metadata)),
        Object::Namespace(o) => ObjectRef::Namespace(cluster(&o.metadata)),
        Object::Pod(o) => ObjectRef::Pod(key(&o.metadata)),
        Object::Service(o) => ObjectRef::Service(key(&o.metadata)),
        Object::EndpointSlice(o) => ObjectRef::EndpointSlice(key(&o.metadata)),
        Object::EipGateway(o) => ObjectRef::EipGateway(cluster(&o.metadata)),
        Object::Eip(o) => ObjectRef::Eip(key(&o.metadata)),
        Object::Claim(o) => ObjectRef::Claim(o.group.clone()),
        Object::Chassis(o) => ObjectRef::Chassis(o.name.clone()),
        Object::NetworkProbe(o) => ObjectRef::NetworkProbe(key(&o.metadata)),
        Object::Prober(o) => ObjectRef::Prober(o.chassis.clone()),
        Object::Leaving(o) => ObjectRef::Leaving(o.clone()),
        Object::ServiceCidr(o) => ObjectRef::ServiceCidr(cluster(&o.metadata)),
    }
}

pub fn apply(object: impl Into<Object>) -> Event {
    Event::Apply(object.into())
}

/// The Subnet of these namespaces.
pub fn subnet_of(subnet: &Subnet, namespaces: &[&str]) -> Arc<Subnet> {
    let mut subnet = subnet.clone();
    subnet.spec.namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
    Arc::new(subnet)
}

/// The Subnet with an IPv4 range that was accepted before.
pub fn subnet_in_force(subnet: &Subnet, cidr: &str) -> Arc<Subnet> {
    let mut subnet = subnet.clone();
    let status = subnet.status.get_or_insert_default();
    status.cidr = Some(cidr.to_owned());
    Arc::new(subnet)
}

/// The EipGateway with a range that was accepted before.
pub fn eip_gateway_in_force(gateway: &EipGateway, cidr: &str) -> Arc<EipGateway> {
    let mut gateway = gateway.clone();
    let status = gateway.status.get_or_insert_default();
    status.cidr = Some(cidr.to_owned());
    Arc::new(gateway)
}

/// The EipGateway, in whose status these addresses rest, and for whose namespaces; given up when 2026 began.
pub fn eip_gateway_releasing(gateway: &EipGateway, released: &[(&str, &str)]) -> Arc<EipGateway> {
    let mut gateway = gateway.clone();
    let status = gateway.status.get_or_insert_default();
    let released = released.iter().map(|(address, namespace)| {
        let entry = json!({"address": address, "namespace": namespace, "time": time(0)});
        serde_json::from_value(entry).expect("a ReleasedAddress")
    });
    status.released = released.collect();
    Arc::new(gateway)
}

/// The Eip, of which this Service has a port.
pub fn eip_port(eip: &Eip, (protocol, port): (&str, i32), service: &str) -> Arc<Eip> {
    let mut eip = eip.clone();
    let status = eip.status.get_or_insert_default();
    status.ports.push(EipPort {
        port,
        protocol: protocol.to_owned(),
        service: service.to_owned(),
    });
    Arc::new(eip)
}

/// The object, told to go; as it is, if it is of a kind that waits for nobody.
pub fn deleted(object: Object) -> Object {
    fn told<T: Clone>(object: &Arc<T>, meta: impl Fn(&mut T) -> &mut ObjectMeta) -> Arc<T> {
        let mut object = T::clone(object);
        meta(&mut object).deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        Arc::new(object)
    }
    match object {
        Object::Vpc(o) => Object::Vpc(told(&o, |o| &mut o.metadata)),
        Object::Subnet(o) => Object::Subnet(told(&o, |o| &mut o.metadata)),
        Object::EipGateway(o) => Object::EipGateway(told(&o, |o| &mut o.metadata)),
        Object::Eip(o) => Object::Eip(told(&o, |o| &mut o.metadata)),
        other => other,
    }
}
