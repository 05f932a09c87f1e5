//! From owners to one transaction of the Northbound database, and from its outcome back.
//!
//! An owner is *settled* when a comparison finds nothing to do and every row it must have is there: after a commit it
//! is compared once more. A transaction that changes rows also adds one to `NB_Global:nb_cfg`; when nothing differs,
//! nothing is written at all.

use std::time::{Duration, Instant};

use ycloud_compiler::{Batch, Owner, Row, compile, hindrance, keep_connections, prerequisites};
use ycloud_ovsdb::{Mutation, Operation, Outcome, Where, nb};

use crate::state::State;
use crate::status::RowState;

/// A transaction ends before it has more operations than this, unless a single owner needs more. Ten thousand inserts
/// block ovsdb-server for about a second; this keeps it under a sixth of that.
pub const MAX_OPERATIONS: usize = 1_500;

/// Owners that are compared in one go, so that events and addresses need not wait long.
const MAX_OWNERS: usize = 1_000;

/// Commits in a row after which an owner that is still not settled waits.
const MAX_COMMITS: u32 = 3;

/// How long an owner waits that commits do not settle.
const UNSETTLED_WAIT: Duration = Duration::from_secs(30);

/// What `NB_Global:options` must say; a value that somebody else has set stays. Source: ovn-nb(5), NB_Global.
/// A dead gateway is noticed after three times 100 milliseconds instead of three seconds; and the DNAT and the SNAT of a
/// router share a conntrack zone, which spares packets a pass each.
const GLOBAL_OPTIONS: &[(&str, &str)] = &[
    ("bfd-min-rx", "100"),
    ("bfd-min-tx", "100"),
    ("bfd-mult", "3"),
    ("use_common_zone", "true"),
];

/// What is to be sent, and for whom.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Those whose rows it changes, in their order; none if only `NB_Global` changes.
    pub owners: Vec<Owner>,
    /// The operations; not empty.
    pub operations: Vec<Operation>,
}

/// What to do next after a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Go on at once.
    GoOn,
    /// The database cannot take transactions now: wait a little.
    BackOff,
}

impl State {
    /// Compares the next owners with the replica, and returns the transaction that is needed; `None`: none of them
    /// needs one. Call it again while [`Self::has_work`].
    pub fn plan(&mut self) -> Option<Transaction> {
        let begun = Instant::now();
        let observed = self.observed.clone();
        let nb_cfg = nb_cfg(&observed);
        let taken = self.rows.take(MAX_OWNERS);
        taken.iter().for_each(|owner| self.linger(owner));
        let mut taken = taken.into_iter();
        let mut owners = Vec::new();
        // The index is lent to the batch while the rest of the state changes.
        let index = std::mem::take(&mut self.index);
        let mut batch = Batch::new(&observed, &index);
        while batch.len() < MAX_OPERATIONS
            && let Some(owner) = taken.next()
        {
            let Some(rows) = self.desired(&owner) else {
                continue;
            };
            let rows = keep_connections(&self.snapshot, &owner, rows, &observed);
            if batch.add(&owner, &rows) {
                self.unsettle(&owner);
                owners.push(owner);
            } else if all_there(&rows, &observed, &index) {
                self.settled(&owner, nb_cfg);
            } else {
                // A parent row is missing; its appearance wakes this owner.
                self.unsettle(&owner);
            }
        }
        let mut operations = batch.into_operations();
        operations.extend(global_options(&observed));
        self.index = index;
        self.rows.put_back(taken);
        // Once for all that was settled, as it looks at every chassis.
        self.advance();
        self.metrics.compile.observe(begun.elapsed().as_secs_f64());
        if operations.is_empty() {
            return None;
        }
        let count = Mutation::add(nb::NbGlobal::NB_CFG, 1i64);
        operations.push(Operation::mutate(
            nb::NbGlobal::TABLE,
            Where::all(),
            vec![count],
        ));
        Some(Transaction { owners, operations })
    }

    /// The rows that `owner` must have; `None`: they are to be left as they are.
    fn desired(&mut self, owner: &Owner) -> Option<Vec<Row>> {
        if self.is_unconfirmed(owner) {
            return None;
        }
        match compile(&self.snapshot, owner) {
            Ok(rows) => {
                if let Some(RowState::Refused(_)) = self.states.get(owner) {
                    if self.exists(owner) {
                        tracing::info!(%owner, "accepted");
                    }
                    self.set_row_state(owner, RowState::Pending);
                }
                Some(rows)
            }
            Err(rejection) => {
                let keep = rejection.keep;
                let state = RowState::Refused(rejection);
                if self.states.get(owner) != Some(&state) {
                    if let RowState::Refused(rejection) = &state {
                        tracing::info!(%owner, reason = rejection.reason, message = rejection.message, "refused");
                    }
                    self.set_row_state(owner, state);
                }
                (!keep).then(Vec::new)
            }
        }
    }

    /// The replica has what `owner` must have.
    fn settled(&mut self, owner: &Owner, nb_cfg: i64) {
        self.rows.settled(owner);
        self.unsettled.remove(owner);
        if !self.exists(owner) {
            self.forget(owner);
            return;
        }
        if matches!(self.row_state(owner), RowState::Refused(_)) {
            return;
        }
        self.set_row_state(owner, RowState::Settled);
        for waiting in self.awaiting.remove(owner).unwrap_or_default() {
            self.rows.push(waiting);
        }
        if let Owner::Service(key) = owner
            && let Some(digest) = self.snapshot.digest(key)
        {
            let hindered = hindrance(&self.snapshot, owner).is_some();
            if self.prerequisites_settled(owner) && !hindered {
                self.tracker.settle(owner, digest, nb_cfg);
            } else {
                self.tracker.unsettle(owner);
            }
            self.objects.push(owner.clone());
        }
    }

    /// Whether the rows without which those of `owner` serve nobody are there too. If not, `owner` is compared again
    /// once they are.
    fn prerequisites_settled(&mut self, owner: &Owner) -> bool {
        let mut settled = true;
        for prerequisite in prerequisites(&self.snapshot, owner) {
            if self.is_settled(&prerequisite) {
                continue;
            }
            settled = false;
            let waiting = self.awaiting.entry(prerequisite).or_default();
            waiting.insert(owner.clone());
        }
        settled
    }

    /// Whether the rows of `owner` are as it asks now: they were, and nothing that concerns it has happened since.
    fn is_settled(&self, owner: &Owner) -> bool {
        let was = matches!(self.row_state(owner), RowState::Settled);
        was && !self.rows.contains(owner) && !self.is_unconfirmed(owner)
    }

    /// Whether `owner` has an address that the API server has not confirmed, so that nobody may see it yet.
    fn is_unconfirmed(&self, owner: &Owner) -> bool {
        match owner {
            Owner::VNic(key) => self.unconfirmed.contains(key),
            Owner::Eip(key) => self.unconfirmed_eips.contains(key),
            _ => false,
        }
    }

    /// Whether [`Self::plan`] has something to do.
    pub fn has_work(&self) -> bool {
        self.rows.has_ready() || global_options(&self.observed).is_some()
    }

    /// Takes in the outcome of a transaction; `Err`: it was not sent, in words.
    pub fn finished(
        &mut self,
        owners: Vec<Owner>,
        outcome: Result<Outcome, String>,
        now: Instant,
    ) -> Next {
        // Nothing waits for the options of NB_Global, and they are tried again with every transaction.
        let refused = match owners.is_empty() {
            true => Next::BackOff,
            false => Next::GoOn,
        };
        let (word, next) = match outcome {
            Ok(Outcome::Committed(_) | Outcome::Unchanged(_)) => {
                self.committed(owners, now);
                ("committed", Next::GoOn)
            }
            Ok(Outcome::Constraint(failure)) => {
                self.refused(&owners, &failure.to_string(), now);
                ("constraint", refused)
            }
            Ok(Outcome::Failed(failure)) => {
                self.refused(&owners, &failure.to_string(), now);
                ("failed", refused)
            }
            Ok(Outcome::Conflict { .. }) => {
                self.again(owners);
                ("conflict", Next::BackOff)
            }
            Ok(Outcome::NotLeader(_)) => {
                self.again(owners);
                ("not leader", Next::BackOff)
            }
            Ok(Outcome::Indeterminate { reason }) => {
                tracing::warn!(
                    reason,
                    "unknown whether a transaction was committed; comparing again"
                );
                self.again(owners);
                ("indeterminate", Next::BackOff)
            }
            Ok(other) => {
                self.refused(&owners, &format!("{other:?}"), now);
                ("failed", refused)
            }
            Err(why) => {
                tracing::warn!(why, "failed to send a transaction; trying again");
                self.again(owners);
                ("not sent", Next::BackOff)
            }
        };
        self.metrics.transaction_ended(word);
        next
    }

    /// Compared once more, so that what is settled is what the replica shows.
    fn committed(&mut self, owners: Vec<Owner>, now: Instant) {
        for owner in owners {
            let commits = self.unsettled.entry(owner.clone()).or_insert(0);
            *commits += 1;
            if *commits <= MAX_COMMITS {
                self.rows.push(owner);
                continue;
            }
            tracing::warn!(%owner, "rows differ again after each commit; does something else write them?");
            self.unsettled.remove(&owner);
            self.rows.push_at(owner, now + UNSETTLED_WAIT);
        }
    }

    fn again(&mut self, owners: Vec<Owner>) {
        owners.into_iter().for_each(|owner| self.rows.push(owner));
    }

    /// The server refused the transaction: find the owner at fault.
    fn refused(&mut self, owners: &[Owner], why: &str, now: Instant) {
        if owners.is_empty() {
            tracing::error!(
                why,
                "the Northbound database refuses the options of NB_Global"
            );
            return;
        }
        let Some(owner) = self.rows.refuse(owners, now) else {
            tracing::warn!(
                owners = owners.len(),
                why,
                "a transaction was refused; halving it"
            );
            return;
        };
        tracing::error!(%owner, why, "the Northbound database refuses the rows of one object");
        self.set_row_state(&owner, RowState::Failing(why.to_owned()));
    }
}

/// Adds the [`GLOBAL_OPTIONS`] that are absent; `None`: none is, or there is no `NB_Global` yet.
fn global_options(observed: &ycloud_ovsdb::Snapshot) -> Option<Operation> {
    let global = nb::NbGlobal::all(observed).next()?;
    let absent = |(name, _): &&(&str, &str)| global.options().get(name).is_none();
    let absent: Vec<(&str, &str)> = GLOBAL_OPTIONS.iter().filter(absent).copied().collect();
    let options = nb::NbGlobal::new().options(absent.iter().copied());
    let options = options.into_columns().remove(nb::NbGlobal::OPTIONS)?;
    // An option that appeared meanwhile keeps its value: RFC 7047 §5.1, "insert" of a map.
    let insert = Mutation::insert(nb::NbGlobal::OPTIONS, options);
    let insert = Operation::mutate(nb::NbGlobal::TABLE, Where::all(), vec![insert]);
    (!absent.is_empty()).then_some(insert)
}

/// `NB_Global:nb_cfg`; 0 if the database is empty.
pub fn nb_cfg(observed: &ycloud_ovsdb::Snapshot) -> i64 {
    let mut rows = observed.table(nb::NbGlobal::TABLE).iter();
    rows.next().map_or(0, |row| nb::NbGlobal::of(row).nb_cfg())
}

/// Whether every row exists and is a member where it must be.
fn all_there(
    rows: &[Row],
    observed: &ycloud_ovsdb::Snapshot,
    index: &ycloud_compiler::OwnerIndex,
) -> bool {
    rows.iter().all(|row| {
        observed.row(row.table, row.uuid).is_some()
            && row
                .parents
                .iter()
                .all(|parent| index.references(row.uuid).any(|there| there == parent))
    })
}
