//! Service gateways follow the chassis that OVN moved their group to.
//!
//! A service gateway is a gateway router: OVN binds it to the chassis that its `options:chassis` names and moves it to
//! no other. The alias routers beside it have ports of the `HA_Chassis_Group` of the same name, which OVN does move
//! when a chassis dies. This step, which every replica does whether it leads or not, writes what OVN decided into
//! `options:chassis`: a Lease takes 15 seconds to change hands, and the node that died may have carried the leader.
//!
//! ```text
//!   Southbound: Port_Binding (chassisredirect) ─► Standing ─┬─► the reconciler (priorities of the groups)
//!   Northbound: HA_Chassis_Group, options:chassis ──────────┴─► moves (pure) ─► one guarded update a router
//! ```
//!
//! # Guarantees
//! * A router is moved only to a chassis that its group has in the Northbound database.
//! * Each update is refused if the options are not those that it was computed from; two replicas do no harm.
//! * What another replica moved is not moved back by one that has heard less: a router stays until the Southbound database,
//!   as this replica knows it, is the translation of a Northbound one in which the router is where it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use ycloud_client::Heartbeat;
use ycloud_compiler::Owner;
use ycloud_compiler::owner::OWNER_KEY;
use ycloud_compiler::snapshot::Claim;
use ycloud_ovsdb::{Change, Client, Columns, Event, Mutation, Operation, Outcome, Snapshot, nb};

use crate::apply;
use crate::southbound::{self, Standing};

/// The option of a gateway router that says where it is. Source: ovn-nb(5), Logical_Router.
const CHASSIS: &str = "chassis";

/// First and longest wait after an update that was refused or not sent, unless something changes before.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A service gateway that is not where its group is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The `Logical_Router`.
    pub router: Uuid,
    /// Its name.
    pub name: String,
    /// Its `options` as they are.
    pub options: BTreeMap<String, String>,
    /// Name of the chassis that it belongs on.
    pub chassis: String,
}

impl Move {
    /// The update, which only succeeds while the options are as they were seen.
    pub fn operations(&self) -> Vec<Operation> {
        let mut options = self.options.clone();
        let pairs = |options: &BTreeMap<String, String>| {
            let pairs = options.iter().map(|(k, v)| (k.as_str(), v.as_str()));
            nb::LogicalRouter::new().options(pairs).into_columns()
        };
        let seen: Columns = pairs(&options);
        options.insert(CHASSIS.to_owned(), self.chassis.clone());
        vec![
            Operation::expect(nb::LogicalRouter::TABLE, self.router, seen),
            Operation::update(nb::LogicalRouter::TABLE, self.router, pairs(&options)),
            // The numbers of transactions that change rows grow, see `programmed`.
            Operation::mutate(
                nb::NbGlobal::TABLE,
                ycloud_ovsdb::Where::all(),
                vec![Mutation::add(nb::NbGlobal::NB_CFG, 1i64)],
            ),
        ]
    }
}

/// The service gateways to move, by their UUID.
pub fn moves(northbound: &Snapshot, claims: &BTreeMap<String, Claim>) -> Vec<Move> {
    let groups = nb::HaChassisGroup::all(northbound).filter_map(|group| {
        let claim = claims.get(group.name())?;
        let mut members = group.ha_chassis().filter_map(|member| {
            let member = nb::HaChassis::find(northbound, member)?;
            Some(member.chassis_name())
        });
        let eligible = members.any(|member| member == claim.chassis);
        eligible.then_some((claim.group.as_str(), claim.chassis.as_str()))
    });
    let groups: BTreeMap<&str, &str> = groups.collect();
    let routers = nb::LogicalRouter::all(northbound).filter_map(|router| {
        let chassis = *groups.get(router.name())?;
        let now = router.options().get(CHASSIS)?;
        if now == chassis || !is_of_gateway(router) {
            return None;
        }
        let options = router.options().iter();
        Some(Move {
            router: router.uuid(),
            name: router.name().to_owned(),
            options: options.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            chassis: chassis.to_owned(),
        })
    });
    routers.collect()
}

fn is_of_gateway(router: nb::LogicalRouterRow<'_>) -> bool {
    let owner = router
        .external_ids()
        .get(OWNER_KEY)
        .and_then(|text| text.parse().ok());
    matches!(owner, Some(Owner::EipGateway(_)))
}

/// Where routers are, and the `NB_Global:nb_cfg` at which that was first seen.
#[derive(Debug, Default)]
struct Placed(BTreeMap<Uuid, (String, i64)>);

impl Placed {
    fn observe(&mut self, northbound: &Snapshot) {
        let nb_cfg = apply::nb_cfg(northbound);
        let mut former = std::mem::take(&mut self.0);
        for router in nb::LogicalRouter::all(northbound) {
            let Some(chassis) = router.options().get(CHASSIS) else {
                continue;
            };
            let kept = former.remove(&router.uuid());
            let kept = kept.filter(|(before, _)| before == chassis);
            let placed = kept.unwrap_or_else(|| (chassis.to_owned(), nb_cfg));
            self.0.insert(router.uuid(), placed);
        }
    }

    /// Whether who holds a group at this `SB_Global:nb_cfg` was decided after the router was put where it is.
    fn is_older_than(&self, router: Uuid, nb_cfg: i64) -> bool {
        let placed = self.0.get(&router);
        placed.is_none_or(|(_, since)| *since <= nb_cfg)
    }
}

/// Whether one of the Northbound changes may change [`moves`].
fn concerns(changes: &[Change]) -> bool {
    let tables = [
        nb::LogicalRouter::TABLE,
        nb::HaChassisGroup::TABLE,
        nb::HaChassis::TABLE,
    ];
    changes
        .iter()
        .any(|change| tables.contains(&&*change.table))
}

/// Who holds each group, as it is told to others; `None`: not known yet.
pub type Claims = Option<Arc<BTreeMap<String, Claim>>>;

/// Moves service gateways until `stop` is cancelled, and tells who holds the groups. A pass is a look at the databases, with its updates.
pub async fn run(
    (northbound, southbound): (Client, Client),
    told: watch::Sender<Claims>,
    stop: CancellationToken,
    heartbeat: Heartbeat,
) {
    if southbound.synced().await.is_err() {
        return;
    }
    let (mut of_north, mut of_south) = (northbound.subscribe(), southbound.subscribe());
    let (mut standing, mut placed) = (Standing::default(), Placed::default());
    let mut retry: Option<Duration> = None;
    // Something depends on how far the chassis, or northd, are.
    let mut waiting = false;
    loop {
        let due = standing.next_due();
        let look = tokio::select! {
            () = stop.cancelled() => return,
            event = of_south.next() => match event {
                Event::Delta(changes) => {
                    southbound::concerns_claims(&changes)
                        || waiting && southbound::concerns_progress(&changes)
                }
                Event::Resync(_) => true,
            },
            event = of_north.next() => match event {
                Event::Delta(changes) => concerns(&changes),
                Event::Resync(_) => true,
            },
            () = until(due) => true,
            () = tokio::time::sleep(retry.unwrap_or_default()), if retry.is_some() => true,
        };
        if !look {
            continue;
        }
        let _pass = heartbeat.pass();
        let now = Instant::now();
        let (observed, wanted) = (southbound.snapshot(), northbound.snapshot());
        standing.observe(&observed, now);
        standing.settle(now);
        tell(&told, standing.claims());
        placed.observe(&wanted);
        let mut moves = moves(&wanted, &standing.undisputed());
        let all = moves.len();
        let nb_cfg = southbound::nb_cfg(&observed);
        moves.retain(|step| placed.is_older_than(step.router, nb_cfg));
        waiting = moves.len() < all || standing.next_due().is_some();
        let done = follow(&northbound, moves).await;
        let longer = retry.map_or(RETRY.0, |wait| (wait * 2).min(RETRY.1));
        retry = (!done).then_some(longer);
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn tell(told: &watch::Sender<Claims>, claims: &BTreeMap<String, Claim>) {
    told.send_if_modified(|last| {
        let news = last.as_deref() != Some(claims);
        if news {
            *last = Some(Arc::new(claims.clone()));
        }
        news
    });
}

/// Moves the service gateways; false: to be tried again.
async fn follow(northbound: &Client, moves: Vec<Move>) -> bool {
    let mut done = true;
    for step in moves {
        let (router, chassis) = (&step.name, &step.chassis);
        let why = match northbound.transact(step.operations()).await {
            Ok(Outcome::Committed(_) | Outcome::Unchanged(_)) => {
                tracing::info!(router, chassis, "service gateway moved");
                continue;
            }
            // Another replica was faster; its change comes by.
            Ok(Outcome::Conflict { .. }) => continue,
            Ok(outcome) => format!("{outcome:?}"),
            Err(error) => error.to_string(),
        };
        done = false;
        tracing::warn!(
            router,
            chassis,
            why,
            "failed to move a service gateway; trying again"
        );
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use ycloud_compiler::row::external_ids;
    use ycloud_ovsdb::Schema;

    const SCHEMA: &str = include_str!("../../ovsdb/schemas/ovn-nb.ovsschema");
    const SG: &str = "sg/gw/1";

    /// A group with chassis a and b, and a router of its name on `chassis`, owned by `owner`.
    fn database(chassis: &str, owner: &Owner) -> Snapshot {
        database_at(chassis, owner, 1)
    }

    fn database_at(chassis: &str, owner: &Owner, nb_cfg: i64) -> Snapshot {
        let schema = Arc::new(Schema::parse(SCHEMA).unwrap());
        let member = |id, name: &str| {
            let row = nb::HaChassis::new().chassis_name(name).into_columns();
            (nb::HaChassis::TABLE, Uuid::from_u128(id), row)
        };
        let group = nb::HaChassisGroup::new()
            .name(SG)
            .ha_chassis([Uuid::from_u128(1), Uuid::from_u128(2)]);
        let router = nb::LogicalRouter::new()
            .name(SG)
            .options([("chassis", chassis), ("lb_force_snat_ip", "100.83.255.1")])
            .external_ids(external_ids(owner, "service-gateway"));
        let global = nb::NbGlobal::new().nb_cfg(nb_cfg).into_columns();
        let rows = [
            (nb::NbGlobal::TABLE, Uuid::from_u128(5), global),
            member(1, "a"),
            member(2, "b"),
            (nb::HaChassisGroup::TABLE, Uuid::from_u128(3), group.into()),
            (nb::LogicalRouter::TABLE, Uuid::from_u128(4), router.into()),
        ];
        Snapshot::of(&schema, rows).unwrap()
    }

    fn claimed(chassis: &str) -> BTreeMap<String, Claim> {
        let claim = Claim {
            group: SG.to_owned(),
            chassis: chassis.to_owned(),
        };
        BTreeMap::from([(SG.to_owned(), claim)])
    }

    #[test]
    fn a_service_gateway_follows_its_group_and_nothing_else() {
        let gateway = Owner::EipGateway("gw".to_owned());
        let on_a = database("a", &gateway);
        let found = moves(&on_a, &claimed("b"));
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].name.as_str(), found[0].chassis.as_str()),
            (SG, "b")
        );
        assert_eq!(found[0].options["lb_force_snat_ip"], "100.83.255.1");
        assert_eq!(moves(&on_a, &claimed("a")), [], "it is there");
        assert_eq!(moves(&on_a, &BTreeMap::new()), [], "nobody holds the group");
        assert_eq!(moves(&on_a, &claimed("c")), [], "no member of the group");
        let foreign = database("a", &Owner::Vpc("sg".to_owned()));
        assert_eq!(moves(&foreign, &claimed("b")), [], "not a gateway's router");
    }

    #[test]
    fn a_replica_that_has_heard_less_moves_nothing_back() {
        let gateway = Owner::EipGateway("gw".to_owned());
        let router = Uuid::from_u128(4);
        let at = |chassis, nb_cfg| database_at(chassis, &gateway, nb_cfg);
        let mut placed = Placed::default();
        placed.observe(&at("a", 5));
        assert!(placed.is_older_than(router, 5) && !placed.is_older_than(router, 4));
        // Transactions about other things do not count.
        placed.observe(&at("a", 8));
        assert!(placed.is_older_than(router, 5));
        placed.observe(&at("b", 9));
        assert!(!placed.is_older_than(router, 8), "who moved it knew more");
        assert!(placed.is_older_than(router, 9));
    }
}
