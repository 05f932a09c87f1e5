//! Endpoints → EndpointSlices, such that one endpoint's change rewrites one slice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use uuid::Uuid;
use ycloud_api::YusurService;
use ycloud_api::address::Family;
use ycloud_api::key;
use ycloud_api::made::{MANAGED_BY, SERVICE_NAME, slice_made_for};

use super::backend::Candidate;
use super::found::{Ended, Groups, Shape, TargetPort};
use super::health::Judgement;
use super::{holds, owner_reference, owner_uid};
use crate::address::listed;

/// How many endpoints a slice holds at most, as in Kubernetes' own slices.
pub const MAX_ENDPOINTS: usize = 100;

/// Those of `slices` that ycloud wrote for the owner with `uid`, sorted by name.
pub fn own<'a>(slices: &[&'a EndpointSlice], uid: &str) -> Vec<&'a EndpointSlice> {
    let mine = |slice: &&EndpointSlice| slice_made_for(&slice.metadata) == Some(uid);
    let mut own: Vec<&EndpointSlice> = slices.iter().copied().filter(mine).collect();
    own.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    own
}

/// A slice in the making.
struct Draft {
    name: String,
    shape: Shape,
    endpoints: Vec<Endpoint>,
}

/// The slices that `ysvc` must have for `groups`, sorted by name. Endpoints stay where they are in `present`; new ones
/// fill up the slices there are; slices that become empty go away, unless they are needed to tell who `ended`. Each slice says of which of its Vpc's `ended` it has, or
/// is the first that could have.
pub fn pack(
    ysvc: &YusurService,
    groups: Groups,
    mut ended: Ended,
    present: &[&EndpointSlice],
) -> Vec<EndpointSlice> {
    let uid = ysvc.metadata.uid.as_deref().unwrap_or_default();
    let own = own(present, uid);
    let mut names: BTreeSet<String> = own.iter().filter_map(|s| s.metadata.name.clone()).collect();
    let mut drafts = Vec::new();
    let mut homes = homes(&groups, &own);
    for (shape, endpoints) in groups {
        let mine = homes.remove(&shape).unwrap_or_default();
        let mut group = keep(&shape, endpoints, &mine);
        let mut full = group.drafts;
        for endpoint in group.new.drain(..) {
            match full.iter_mut().find(|d| d.endpoints.len() < MAX_ENDPOINTS) {
                Some(draft) => draft.endpoints.push(endpoint),
                None => full.push(Draft {
                    name: new_name(ysvc, uid, shape.family, &mut names),
                    shape: shape.clone(),
                    endpoints: vec![endpoint],
                }),
            }
        }
        drafts.extend(full.into_iter().filter(|draft| !draft.endpoints.is_empty()));
    }
    let name = |e: &Endpoint| {
        let target = e.target_ref.as_ref();
        target.map(|target| (target.namespace.clone(), target.name.clone()))
    };
    for draft in &mut drafts {
        draft.endpoints.sort_by_cached_key(name);
    }
    // Who ended must be told of, also where nobody is an endpoint any more.
    for slice in &own {
        let (vpc, family) = (vpc_of(slice), family_of(slice));
        let is = |shape: &Shape| shape.vpc == vpc && shape.family == family;
        let tells = |(of, ip): &(String, IpAddr)| of == vpc && Family::of(*ip) == family;
        if ended.iter().any(tells) && !drafts.iter().any(|draft| is(&draft.shape)) {
            drafts.push(Draft {
                name: slice.metadata.name.clone().unwrap_or_default(),
                shape: shape_of(slice),
                endpoints: Vec::new(),
            });
        }
    }
    drafts.sort_by(|a, b| a.name.cmp(&b.name));
    let slices = drafts.into_iter().map(|draft| slice(ysvc, draft));
    let mut slices: Vec<EndpointSlice> = slices.collect();
    for slice in &mut slices {
        mark_ended(slice, &mut ended, |here, ip| here.contains(&ip));
    }
    for slice in &mut slices {
        mark_ended(slice, &mut ended, |_, _| true);
    }
    slices
}

/// Moves those of `ended` that are of a slice's Vpc and family, and that `fits` (the slice's addresses, the address) says yes
/// to, to the slice's annotation [`key::ENDED`].
fn mark_ended(
    slice: &mut EndpointSlice,
    ended: &mut Ended,
    fits: impl Fn(&BTreeSet<IpAddr>, IpAddr) -> bool,
) {
    let (vpc, family) = (vpc_of(slice).to_owned(), family_of(slice));
    let addresses = slice.endpoints.iter().flat_map(|e| &e.addresses);
    let here: BTreeSet<IpAddr> = addresses.filter_map(|ip| ip.parse().ok()).collect();
    let mine =
        |(of, ip): &(String, IpAddr)| *of == vpc && Family::of(*ip) == family && fits(&here, *ip);
    let taken: Ended = ended.iter().filter(|one| mine(one)).cloned().collect();
    if taken.is_empty() {
        return;
    }
    ended.retain(|one| !taken.contains(one));
    let annotations = slice.metadata.annotations.get_or_insert_default();
    let mut all: BTreeSet<IpAddr> = taken.into_iter().map(|(_, ip)| ip).collect();
    let before = annotations.get(key::ENDED);
    all.extend(listed(before.map(String::as_str)));
    let text: Vec<String> = all.iter().map(IpAddr::to_string).collect();
    annotations.insert(key::ENDED.to_owned(), text.join(","));
}

/// The present slices of `ysvc` with the present state of their backends, as `judge` (backend, Vpc, its address) says: those
/// that are gone, ended or at another address are taken out, but for guests that migrated, which are followed; and so are those that `permitted` (namespace, Vpc) says no to.
/// None is added, and ports stay.
pub fn refresh<'a>(
    ysvc: &YusurService,
    candidates: &[Candidate<'a>],
    present: &[&EndpointSlice],
    permitted: impl Fn(&str, &str) -> bool,
    judge: impl Fn(&Candidate<'a>, &str, IpAddr) -> Judgement,
) -> Vec<EndpointSlice> {
    let by_uid: BTreeMap<&str, &Candidate> = candidates.iter().map(|c| (c.uid(), c)).collect();
    let now = |former: &Endpoint, vpc: &str, family: Family, ended: &mut Ended| {
        let candidate = by_uid.get(identity(former).as_str())?;
        let address = candidate.address(family)?;
        if !permitted(candidate.namespace(), vpc) {
            ended.insert((vpc.to_owned(), address));
            return None;
        }
        if former.addresses != [address.to_string()] && !candidate.moves() {
            return None;
        }
        let judgement = judge(candidate, vpc, address);
        if judgement.ends {
            ended.insert((vpc.to_owned(), address));
        }
        Some(candidate.endpoint(address, judgement.conditions?))
    };
    let owner = ysvc.metadata.uid.as_deref().unwrap_or_default();
    own(present, owner)
        .into_iter()
        .map(|slice| {
            let mut annotations = slice.metadata.annotations.clone();
            annotations.iter_mut().for_each(|all| {
                all.remove(key::ENDED);
            });
            let (vpc, family) = (vpc_of(slice), family_of(slice));
            let mut ended = Ended::new();
            let endpoints = slice.endpoints.iter();
            let endpoints = endpoints.filter_map(|former| now(former, vpc, family, &mut ended));
            let mut slice = EndpointSlice {
                endpoints: endpoints.collect(),
                metadata: ObjectMeta {
                    name: slice.metadata.name.clone(),
                    namespace: slice.metadata.namespace.clone(),
                    labels: slice.metadata.labels.clone(),
                    annotations,
                    owner_references: slice.metadata.owner_references.clone(),
                    ..ObjectMeta::default()
                },
                ..slice.clone()
            };
            mark_ended(&mut slice, &mut ended, |_, _| true);
            slice
        })
        .collect()
}

/// Which present slices serve which group: those of the group's family, Vpc and ports; and of the others (the spec's ports
/// changed) each goes to the group of its family that most of its endpoints are in now, so that it is rewritten in one
/// step. A slice's family cannot change.
fn homes<'a>(
    groups: &Groups,
    own: &[&'a EndpointSlice],
) -> BTreeMap<Shape, Vec<&'a EndpointSlice>> {
    let mut group_of: BTreeMap<(Family, String), &Shape> = BTreeMap::new();
    for (shape, endpoints) in groups {
        for endpoint in endpoints {
            group_of.insert((shape.family, identity(endpoint)), shape);
        }
    }
    let mut homes: BTreeMap<Shape, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in own {
        let shape = shape_of(slice);
        if groups.contains_key(&shape) {
            homes.entry(shape).or_default().push(slice);
            continue;
        }
        let mut votes: BTreeMap<&Shape, usize> = BTreeMap::new();
        for endpoint in &slice.endpoints {
            if let Some(shape) = group_of.get(&(family_of(slice), identity(endpoint))) {
                *votes.entry(shape).or_default() += 1;
            }
        }
        if let Some((shape, _)) = votes.into_iter().max_by_key(|(_, votes)| *votes) {
            homes.entry(shape.clone()).or_default().push(slice);
        }
    }
    homes
}

struct Kept {
    drafts: Vec<Draft>,
    new: Vec<Endpoint>,
}

/// Puts each endpoint into the slice that it is in already; the others are new.
fn keep(shape: &Shape, endpoints: Vec<Endpoint>, slices: &[&EndpointSlice]) -> Kept {
    let mut drafts: Vec<Draft> = slices
        .iter()
        .map(|slice| Draft {
            name: slice.metadata.name.clone().unwrap_or_default(),
            shape: shape.clone(),
            endpoints: Vec::new(),
        })
        .collect();
    let mut place: BTreeMap<String, usize> = BTreeMap::new();
    for (index, slice) in slices.iter().enumerate() {
        for endpoint in &slice.endpoints {
            place.entry(identity(endpoint)).or_insert(index);
        }
    }
    let mut new = Vec::new();
    for endpoint in endpoints {
        let index = place.get(&identity(&endpoint));
        match index.and_then(|index| drafts.get_mut(*index)) {
            Some(draft) if draft.endpoints.len() < MAX_ENDPOINTS => draft.endpoints.push(endpoint),
            _ => new.push(endpoint),
        }
    }
    Kept { drafts, new }
}

/// What makes an endpoint the same one: its Pod, VNic or VirtualMachineInstance.
pub fn identity(endpoint: &Endpoint) -> String {
    let target = endpoint.target_ref.as_ref();
    target.and_then(|t| t.uid.clone()).unwrap_or_default()
}

/// A name that none of `names` is: derived from the YusurService's UID, so that no other slice has it.
fn new_name(
    ysvc: &YusurService,
    uid: &str,
    family: Family,
    names: &mut BTreeSet<String>,
) -> String {
    let owner = ysvc.metadata.name.as_deref().unwrap_or_default();
    let seed = match family {
        Family::Ipv4 => uid.to_owned(),
        Family::Ipv6 => format!("{uid}/{family}"),
    };
    let space = Uuid::new_v5(&Uuid::NAMESPACE_OID, seed.as_bytes());
    let mut index = 0_u32;
    loop {
        let hash = Uuid::new_v5(&space, &index.to_be_bytes())
            .simple()
            .to_string();
        let name = format!("{owner}-{}", hash.get(..8).unwrap_or_default());
        if names.insert(name.clone()) {
            return name;
        }
        index += 1;
    }
}

fn shape_of(slice: &EndpointSlice) -> Shape {
    Shape {
        family: family_of(slice),
        vpc: vpc_of(slice).to_owned(),
        ports: ports_of(slice),
    }
}

/// The family of a slice of ycloud's, which has addresses.
fn family_of(slice: &EndpointSlice) -> Family {
    Family::named(&slice.address_type).unwrap_or(Family::Ipv4)
}

fn vpc_of(slice: &EndpointSlice) -> &str {
    let labels = slice.metadata.labels.as_ref();
    let vpc = labels.and_then(|labels| labels.get(key::VPC));
    vpc.map_or("", String::as_str)
}

fn ports_of(slice: &EndpointSlice) -> Vec<TargetPort> {
    let mut ports: Vec<TargetPort> = slice
        .ports
        .iter()
        .flatten()
        .map(|port| TargetPort {
            name: port.name.clone().unwrap_or_default(),
            protocol: match port.protocol.as_deref() {
                Some("UDP") => "UDP",
                Some("SCTP") => "SCTP",
                _ => "TCP",
            },
            port: port.port.unwrap_or_default(),
        })
        .collect();
    ports.sort();
    ports
}

fn slice(ysvc: &YusurService, draft: Draft) -> EndpointSlice {
    let Shape { family, vpc, ports } = draft.shape;
    let service = ysvc.metadata.name.clone().unwrap_or_default();
    let port = |port: TargetPort| EndpointPort {
        name: Some(port.name),
        protocol: Some(port.protocol.into()),
        port: Some(port.port),
        ..EndpointPort::default()
    };
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(draft.name),
            namespace: ysvc.metadata.namespace.clone(),
            labels: Some(BTreeMap::from([
                (SERVICE_NAME.into(), service),
                (MANAGED_BY.into(), key::ENDPOINTSLICE_MANAGED_BY.into()),
                (key::VPC.into(), vpc.clone()),
            ])),
            annotations: Some(BTreeMap::from([(key::VPC.into(), vpc)])),
            owner_references: Some(vec![owner_reference(ysvc)]),
            ..ObjectMeta::default()
        },
        address_type: family.name().into(),
        endpoints: draft.endpoints,
        ports: Some(ports.into_iter().map(port).collect()),
    }
}

/// Annotation [`key::ENDED`] of a slice.
fn ended(slice: &EndpointSlice) -> Option<&String> {
    slice.metadata.annotations.as_ref()?.get(key::ENDED)
}

/// Whether `present` reads as `wanted` in every field that ycloud sets.
pub fn same(present: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    let meta = (&present.metadata, &wanted.metadata);
    holds(&meta.0.labels, &meta.1.labels)
        && holds(&meta.0.annotations, &meta.1.annotations)
        && ended(present) == ended(wanted)
        && owner_uid(&meta.0.owner_references) == owner_uid(&meta.1.owner_references)
        && present.address_type == wanted.address_type
        && present.endpoints == wanted.endpoints
        && ports_of(present) == ports_of(wanted)
}
