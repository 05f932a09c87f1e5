//! What the Southbound database says of chassis, and of who carries gateways: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ycloud_compiler::snapshot::{Chassis, Claim};
use ycloud_ovsdb::{Change, Snapshot, sb};

/// `Port_Binding:type` of the ports by which distributed routers reach a gateway. Source: ovn-sb(5).
pub const CHASSIS_REDIRECT: &str = "chassisredirect";

/// Key of `Chassis:other_config`: the physical networks of a chassis and their bridges. Source: ovn-controller(8).
const BRIDGE_MAPPINGS: &str = "ovn-bridge-mappings";

/// Key of `Chassis:other_config`: `netdev` where Open vSwitch forwards in user space. Source: ovn-controller(8).
const DATAPATH_TYPE: &str = "datapath-type";

/// Key of `Chassis:other_config` that every ovn-controller sets since 23.09, whose Open vSwitch is 3.2. Source: OVN's
/// include/ovn/features.h. Nothing in the database says Open vSwitch's own version.
const SINCE_23_09: &str = "fdb-timestamp";

/// Whether one of the changes may change [`claims`].
pub fn concerns_claims(changes: &[Change]) -> bool {
    let tables = [
        sb::PortBinding::TABLE,
        sb::HaChassisGroup::TABLE,
        sb::Chassis::TABLE,
    ];
    changes
        .iter()
        .any(|change| tables.contains(&&*change.table))
}

/// Every chassis with its physical networks, by name.
pub fn chassis(observed: &Snapshot) -> BTreeMap<String, Chassis> {
    let all = sb::Chassis::all(observed).map(|row| {
        let config = row.other_config();
        let mappings = config.get(BRIDGE_MAPPINGS);
        let chassis = Chassis {
            name: row.name().to_owned(),
            physical_networks: physical_networks(mappings.unwrap_or_default()),
            without_sctp_ports: config.get(DATAPATH_TYPE) == Some("netdev")
                && config.get(SINCE_23_09).is_none(),
            forgets_connections: config.get(SINCE_23_09).is_none(),
        };
        (chassis.name.clone(), chassis)
    });
    all.collect()
}

/// The networks of `<network>:<bridge>,…`.
fn physical_networks(mappings: &str) -> BTreeSet<String> {
    let pairs = mappings.split(',').filter_map(|pair| pair.split_once(':'));
    pairs
        .map(|(network, _)| network.trim().to_owned())
        .filter(|network| !network.is_empty())
        .collect()
}

/// Who holds the ports of each `HA_Chassis_Group`, by the group's name. Of several chassis, as in the midst of a
/// take-over, the one that holds most ports, and of equals the first by name. A group whose ports nobody holds has
/// none.
pub fn claims(observed: &Snapshot) -> BTreeMap<String, Claim> {
    let mut ports: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for port in sb::PortBinding::all(observed) {
        let (Some(group), Some(chassis)) = (port.ha_chassis_group(), port.chassis()) else {
            continue;
        };
        let group = sb::HaChassisGroup::find(observed, group);
        let chassis = sb::Chassis::find(observed, chassis);
        if let (Some(group), Some(chassis), CHASSIS_REDIRECT) = (group, chassis, port.type_()) {
            let holders = ports.entry(group.name().to_owned()).or_default();
            *holders.entry(chassis.name().to_owned()).or_default() += 1;
        }
    }
    let claim = |(group, holders): (String, BTreeMap<String, usize>)| {
        // The last one of the highest is taken: in reverse order, the first by name.
        let most = holders.into_iter().rev().max_by_key(|(_, count)| *count);
        let chassis = most?.0;
        Some((group.clone(), Claim { group, chassis }))
    };
    ports.into_iter().filter_map(claim).collect()
}

/// Names of the groups that there are.
pub fn groups(observed: &Snapshot) -> BTreeSet<String> {
    let all = sb::HaChassisGroup::all(observed);
    all.map(|group| group.name().to_owned()).collect()
}

/// Whether one of the changes may change how far the chassis are.
pub fn concerns_progress(changes: &[Change]) -> bool {
    let tables = [sb::ChassisPrivate::TABLE, sb::SbGlobal::TABLE];
    changes
        .iter()
        .any(|change| tables.contains(&&*change.table))
}

/// `SB_Global:nb_cfg`: up to which number of the Northbound database this is its translation; 0 if it is empty.
pub fn nb_cfg(observed: &Snapshot) -> i64 {
    let mut rows = sb::SbGlobal::all(observed);
    rows.next().map_or(0, |row| row.nb_cfg())
}

/// How long a claim must stand before it is believed.
pub const STANDING: Duration = Duration::from_millis(50);

/// The same for a chassis that has not heard of the last change yet. A node that was cut off and returns claims for about
/// 130 ms what it held before, until it learns who holds it now; to follow it would move everything twice.
pub const STANDING_BEHIND: Duration = Duration::from_secs(1);

/// For how long a chassis that came is new. An ovn-controller that exited and begins again has heard of everything, but its
/// tunnels' BFD sessions are not up yet: it believes itself alone, and claims every group for about 100 ms. So [`STANDING_BEHIND`]
/// holds for it too.
const NEW: Duration = Duration::from_secs(10);

/// A group whose holder changed within this time has to stand twice as long for each such change. Two nodes of which
/// neither hears the other, while all others hear both, claim by turns for good.
const RESTLESS: Duration = Duration::from_secs(60);

/// The most doublings: 3.2 s of [`STANDING`].
const DOUBLINGS: u32 = 6;

/// The claims that have stood for a while. A group keeps its last holder while nobody holds it, so that priorities stay
/// as they are until somebody takes over. No clock of its own.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    believed: BTreeMap<String, Claim>,
    /// What is held by somebody else than is believed, and since when.
    rivals: BTreeMap<String, (Claim, Instant)>,
    /// How often the holder changed, each time within [`RESTLESS`] of the last, and when it last did.
    changes: BTreeMap<String, (u32, Instant)>,
    /// The `nb_cfg` at which a chassis knows who holds the group.
    known_at: BTreeMap<String, i64>,
    /// `Chassis_Private:nb_cfg`, by the chassis' name.
    reached: BTreeMap<String, i64>,
    /// When a chassis came that was not there, if that is not longer ago than [`NEW`].
    came: BTreeMap<String, Instant>,
    /// `SB_Global:nb_cfg`.
    nb_cfg: i64,
    /// Something was observed before.
    begun: bool,
}

impl Standing {
    /// The replica says so at `now`. What it says first is believed at once.
    pub fn observe(&mut self, observed: &Snapshot, now: Instant) {
        let groups = groups(observed);
        self.believed.retain(|group, _| groups.contains(group));
        self.known_at.retain(|group, _| groups.contains(group));
        self.changes.retain(|group, (_, last)| {
            groups.contains(group) && now.saturating_duration_since(*last) < RESTLESS
        });
        self.nb_cfg = nb_cfg(observed);
        let reached = sb::ChassisPrivate::all(observed);
        let before = std::mem::replace(
            &mut self.reached,
            reached
                .map(|row| (row.name().to_owned(), row.nb_cfg()))
                .collect(),
        );
        let came = self.reached.keys();
        let came = came.filter(|name| self.begun && !before.contains_key(*name));
        self.came.extend(came.map(|name| (name.clone(), now)));
        self.came
            .retain(|_, came| now.saturating_duration_since(*came) < NEW);
        let held = claims(observed);
        self.rivals
            .retain(|group, (claim, _)| held.get(group) == Some(claim));
        for (group, claim) in held {
            match self.believed.get(&group) {
                None if !self.begun => {
                    self.known_at.insert(group.clone(), self.nb_cfg);
                    self.believed.insert(group, claim);
                }
                Some(believed) if *believed == claim => {
                    self.rivals.remove(&group);
                }
                _ => {
                    self.rivals.entry(group).or_insert((claim, now));
                }
            }
        }
        self.begun = true;
    }

    /// Believes what has stood for long enough at `now`.
    pub fn settle(&mut self, now: Instant) {
        let due = |group: &String, rival: &(Claim, Instant)| self.due(group, rival) <= now;
        let (settled, rivals): (BTreeMap<_, _>, _) = self
            .rivals
            .clone()
            .into_iter()
            .partition(|(group, rival)| due(group, rival));
        self.rivals = rivals;
        for (group, (claim, _)) in settled {
            let mut known_at = self.nb_cfg;
            if self.believed.insert(group.clone(), claim).is_some() {
                let change = self.changes.entry(group.clone()).or_insert((0, now));
                *change = (change.0 + 1, now);
                // The priorities that follow the holder are part of the next transaction, or a later one.
                known_at += 1;
            }
            self.known_at.insert(group, known_at);
        }
    }

    /// When [`Self::settle`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        let due = self.rivals.iter();
        due.map(|(group, rival)| self.due(group, rival)).min()
    }

    /// When a rival for the group is believed.
    fn due(&self, group: &str, (claim, since): &(Claim, Instant)) -> Instant {
        let known_at = self.known_at.get(group).copied().unwrap_or_default();
        let reached = self.reached.get(&claim.chassis);
        let came = self.came.get(&claim.chassis);
        let new = came.is_some_and(|came| *since < *came + NEW);
        if new || reached.is_none_or(|reached| *reached < known_at) {
            return *since + STANDING_BEHIND;
        }
        let changes = self.changes.get(group).map_or(0, |(changes, _)| *changes);
        *since + STANDING * (1 << changes.min(DOUBLINGS))
    }

    /// The holder of each group about which there is no doubt, by the group's name.
    pub fn undisputed(&self) -> BTreeMap<String, Claim> {
        let mut claims = self.believed.clone();
        claims.retain(|group, _| !self.rivals.contains_key(group));
        claims
    }

    /// The holder of each group, by the group's name.
    pub fn claims(&self) -> &BTreeMap<String, Claim> {
        &self.believed
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::Arc;
    use uuid::Uuid;
    use ycloud_ovsdb::{Columns, Schema};

    const SCHEMA: &str = include_str!("../../ovsdb/schemas/ovn-sb.ovsschema");

    type Rows = Vec<(&'static str, Uuid, Columns)>;

    /// Chassis a (1), b (2), c (3), of which c has no physical network; groups g (11) and h (12).
    fn base() -> Rows {
        let mapped = [(BRIDGE_MAPPINGS, "ext:br-ext, lan:br-lan")];
        let chassis = |id, name: &str, config: &[(&str, &str)]| {
            let row = sb::Chassis::new().name(name);
            let row = row.other_config(config.iter().copied());
            (sb::Chassis::TABLE, Uuid::from_u128(id), row.into_columns())
        };
        let group = |id, name: &str| {
            let row = sb::HaChassisGroup::new().name(name).into_columns();
            (sb::HaChassisGroup::TABLE, Uuid::from_u128(id), row)
        };
        vec![
            chassis(1, "a", &mapped),
            chassis(2, "b", &mapped),
            chassis(3, "c", &[]),
            group(11, "g"),
            group(12, "h"),
        ]
    }

    fn port(
        id: u128,
        kind: &str,
        group: u128,
        chassis: Option<u128>,
    ) -> (&'static str, Uuid, Columns) {
        let row = sb::PortBinding::new()
            .type_(kind)
            .ha_chassis_group(Some(Uuid::from_u128(group)))
            .chassis(chassis.map(Uuid::from_u128));
        (
            sb::PortBinding::TABLE,
            Uuid::from_u128(id),
            row.into_columns(),
        )
    }

    /// The database with these ports besides.
    pub(crate) fn database(
        ports: impl IntoIterator<Item = (&'static str, u128, Option<u128>)>,
    ) -> Snapshot {
        let schema = Arc::new(Schema::parse(SCHEMA).unwrap());
        let mut rows = base();
        for (n, (kind, group, chassis)) in ports.into_iter().enumerate() {
            rows.push(port(100 + n as u128, kind, group, chassis));
        }
        Snapshot::of(&schema, rows).unwrap()
    }

    /// [`database`] with the ports of group g held by `holder`, `nb_cfg`, and what each chassis has reached.
    fn held_at<const N: usize>(
        holder: Option<u128>,
        nb_cfg: i64,
        reached: [(&str, i64); N],
    ) -> Snapshot {
        let schema = Arc::new(Schema::parse(SCHEMA).unwrap());
        let mut rows = base();
        rows.push(port(100, CHASSIS_REDIRECT, 11, holder));
        let global = sb::SbGlobal::new().nb_cfg(nb_cfg).into_columns();
        rows.push((sb::SbGlobal::TABLE, Uuid::from_u128(200), global));
        for (n, (name, nb_cfg)) in reached.into_iter().enumerate() {
            let row = sb::ChassisPrivate::new().name(name).nb_cfg(nb_cfg);
            let id = Uuid::from_u128(300 + n as u128);
            rows.push((sb::ChassisPrivate::TABLE, id, row.into_columns()));
        }
        Snapshot::of(&schema, rows).unwrap()
    }

    fn held(ports: &[(&'static str, u128, Option<u128>)]) -> Vec<(String, String)> {
        let claims = claims(&database(ports.iter().copied())).into_values();
        claims.map(|c| (c.group, c.chassis)).collect()
    }

    #[test]
    fn a_claim_is_who_holds_the_chassisredirect_ports() {
        let of = |group: &str, chassis: &str| (group.to_owned(), chassis.to_owned());
        let cr = CHASSIS_REDIRECT;
        assert_eq!(held(&[(cr, 11, None), ("patch", 11, Some(1))]), []);
        assert_eq!(
            held(&[(cr, 11, Some(2)), (cr, 12, Some(1)), (cr, 11, None)]),
            [of("g", "b"), of("h", "a")]
        );
        let moving = [(cr, 11, Some(1)), (cr, 11, Some(2)), (cr, 11, Some(2))];
        assert_eq!(held(&moving), [of("g", "b")]);
        assert_eq!(held(&moving[..2]), [of("g", "a")]);
        assert_eq!(
            held(&[(cr, 11, Some(77))]),
            [],
            "a chassis that is not there"
        );
    }

    #[test]
    fn a_chassis_has_the_physical_networks_of_its_mappings() {
        let all = chassis(&database([]));
        let networks =
            |name: &str| -> Vec<String> { all[name].physical_networks.iter().cloned().collect() };
        assert_eq!(networks("a"), ["ext", "lan"]);
        assert!(networks("c").is_empty());
        assert!(physical_networks("ext,:br,").is_empty());
    }

    #[test]
    fn a_chassis_in_user_space_before_23_09_translates_no_ports_of_sctp() {
        let without = |config: &[(&'static str, &'static str)]| {
            let row = sb::Chassis::new().name("a");
            let row = row.other_config(config.iter().copied());
            let columns = row.into_columns();
            let id = Uuid::from_u128(1);
            let schema = Arc::new(Schema::parse(SCHEMA).unwrap());
            let observed = Snapshot::of(&schema, [(sb::Chassis::TABLE, id, columns)]).unwrap();
            let chassis = &chassis(&observed)["a"];
            let since = config.iter().any(|(name, _)| *name == SINCE_23_09);
            assert_eq!(chassis.forgets_connections, !since);
            chassis.without_sctp_ports
        };
        let (netdev, since) = ((DATAPATH_TYPE, "netdev"), (SINCE_23_09, "true"));
        assert!(without(&[netdev]));
        assert!(!without(&[netdev, since]));
        assert!(!without(&[(DATAPATH_TYPE, "system")]));
        assert!(!without(&[]));
    }

    /// Its tunnels are not up yet: it hears nobody, and claims what another one holds.
    #[test]
    fn an_ovn_controller_that_begins_anew_is_not_believed_at_once() {
        let holder = |standing: &Standing| standing.claims()["g"].chassis.clone();
        let start = Instant::now();
        let mut standing = Standing::default();
        standing.observe(&held_at(Some(1), 7, [("a", 7)]), start);
        let back = start + Duration::from_secs(5);
        let both = |holder| held_at(Some(holder), 7, [("a", 7), ("b", 7)]);
        standing.observe(&both(2), back);
        standing.settle(back + 2 * STANDING);
        assert_eq!(holder(&standing), "a");
        standing.observe(&both(1), back + 2 * STANDING);
        standing.settle(back + 2 * STANDING_BEHIND);
        assert_eq!((holder(&standing), standing.next_due()), ("a".into(), None));

        // It does take over, or a while has passed.
        let later = back + Duration::from_secs(4);
        standing.observe(&both(2), later);
        assert_eq!(standing.next_due(), Some(later + STANDING_BEHIND));
        standing.settle(later + STANDING_BEHIND);
        assert_eq!(holder(&standing), "b");
        let quiet = back + RESTLESS + NEW;
        let both = |holder| held_at(Some(holder), 8, [("a", 8), ("b", 8)]);
        standing.observe(&both(2), quiet);
        standing.observe(&both(1), quiet);
        standing.settle(quiet + STANDING);
        assert_eq!(holder(&standing), "a");
    }

    #[test]
    fn a_claim_is_believed_once_it_has_stood() {
        let at = |holder| held_at(holder, 7, [("a", 7), ("b", 7)]);
        let holder = |standing: &Standing| standing.claims()["g"].chassis.clone();
        let start = Instant::now();
        let mut standing = Standing::default();
        standing.observe(&at(Some(1)), start);
        assert_eq!(holder(&standing), "a", "at the start, at once");
        standing.observe(&at(None), start);
        let due = |standing: &Standing| standing.next_due();
        assert_eq!((holder(&standing), due(&standing)), ("a".into(), None));
        // Somebody takes it for a moment only.
        standing.observe(&at(Some(2)), start);
        assert_eq!(due(&standing), Some(start + STANDING));
        assert!(standing.undisputed().is_empty());
        standing.settle(start + STANDING / 2);
        standing.observe(&at(Some(1)), start + STANDING / 2);
        standing.settle(start + 2 * STANDING);
        assert_eq!((holder(&standing), due(&standing)), ("a".into(), None));
        // A take-over that lasts.
        let later = start + 3 * STANDING;
        standing.observe(&at(Some(2)), later);
        standing.observe(&at(Some(2)), later + STANDING / 2);
        standing.settle(later + STANDING);
        assert_eq!((holder(&standing), due(&standing)), ("b".into(), None));
    }

    #[test]
    fn who_returns_is_not_believed_before_it_has_heard_of_the_change() {
        let start = Instant::now();
        let mut standing = Standing::default();
        standing.observe(&held_at(Some(1), 7, [("a", 7), ("b", 7)]), start);
        standing.observe(&held_at(Some(2), 7, [("a", 7), ("b", 7)]), start);
        standing.settle(start + STANDING);
        assert_eq!(standing.claims()["g"].chassis, "b");
        // Chassis a was cut off at 7; the change of priorities is 8.
        let back = start + RESTLESS * 2;
        standing.observe(&held_at(Some(1), 9, [("a", 7), ("b", 9)]), back);
        assert_eq!(standing.next_due(), Some(back + STANDING_BEHIND));
        // It knows by now, and goes on: the other one has died.
        standing.observe(&held_at(Some(1), 9, [("a", 9), ("b", 9)]), back);
        assert_eq!(standing.next_due(), Some(back + STANDING));
    }

    #[test]
    fn a_group_that_goes_to_and_fro_is_followed_less_and_less() {
        let mut now = Instant::now();
        let mut standing = Standing::default();
        let mut nb_cfg = 1;
        let mut at = |holder| {
            nb_cfg += 2;
            held_at(Some(holder), nb_cfg, [("a", nb_cfg), ("b", nb_cfg)])
        };
        standing.observe(&at(1), now);
        // Whoever is believed, the other one takes it: the delays double.
        for (holder, doubled) in [(2, 1), (1, 2), (2, 4), (1, 8)] {
            standing.observe(&at(holder), now);
            assert_eq!(standing.next_due(), Some(now + STANDING * doubled));
            now += STANDING * doubled;
            standing.settle(now);
            assert!(!standing.undisputed().is_empty());
        }
        // After a quiet time it is as at first.
        now += RESTLESS;
        standing.observe(&at(2), now);
        assert_eq!(standing.next_due(), Some(now + STANDING));
    }

    #[test]
    fn the_first_holder_of_a_new_group_has_to_stand_too() {
        let start = Instant::now();
        let mut standing = Standing::default();
        let held = |holder| held_at(holder, 7, [("a", 7), ("b", 7)]);
        standing.observe(&held(None), start);
        standing.observe(&held(Some(1)), start);
        assert!(standing.claims().is_empty());
        standing.settle(start + STANDING);
        assert_eq!(standing.claims()["g"].chassis, "a");
        assert_eq!(standing.undisputed(), *standing.claims());
    }
}
