//! The protocol without a server: what only an old, odd or unlucky one does.

use serde_json::{Value, json};

use super::*;
use crate::operation::Columns;
use crate::value::Datum;

const ROW: &str = "00000000-0000-0000-0000-000000000001";
const LAST: &str = "00000000-0000-0000-0000-000000000099";

fn session() -> Session {
    let tables = BTreeMap::from([("T".to_owned(), Monitored::default())]);
    let config = SessionConfig {
        database: "D".to_owned(),
        tables,
        leader_only: true,
    };
    let mut session = Session::new(config);
    session.connected(Instant::now());
    session
}

/// The requests that the session has written since the last call: method, parameters, id.
fn requests(session: &mut Session) -> Vec<(String, Value, u64)> {
    let output = session.take_output();
    let requests = serde_json::Deserializer::from_slice(&output).into_iter::<Value>();
    let part = |request: Value| {
        (
            request["method"].to_string(),
            request["params"].clone(),
            request["id"].as_u64(),
        )
    };
    requests
        .map(|request| part(request.unwrap()))
        .map(|(method, params, id)| (method.trim_matches('"').to_owned(), params, id.unwrap()))
        .collect()
}

fn answer(session: &mut Session, id: u64, result: Value) -> Result<(), SessionError> {
    session.handle(
        json!({"id": id, "result": result, "error": null})
            .to_string()
            .as_bytes(),
    )
}

fn fail(session: &mut Session, id: u64, error: Value) -> Result<(), SessionError> {
    session.handle(
        json!({"id": id, "result": null, "error": error})
            .to_string()
            .as_bytes(),
    )
}

fn notify(session: &mut Session, method: &str, params: Value) -> Result<(), SessionError> {
    session.handle(
        json!({"id": null, "method": method, "params": params})
            .to_string()
            .as_bytes(),
    )
}

fn database(kind: &str, columns: Value) -> Value {
    json!({"Database": {ROW: {kind: columns}}})
}

fn standalone() -> Value {
    database(
        "initial",
        json!({"name": "D", "model": "standalone", "connected": true, "leader": true}),
    )
}

fn member(cluster: &str, index: i64, leader: bool) -> Value {
    let columns = json!({"name": "D", "model": "clustered", "connected": true, "leader": leader,
        "cid": ["uuid", cluster], "index": index});
    database("initial", columns)
}

fn schema(columns: &[&str]) -> Value {
    let columns: BTreeMap<&str, Value> = columns
        .iter()
        .map(|name| (*name, json!({"type": "string"})))
        .collect();
    json!({"name": "D", "version": "1.0.0", "tables": {"T": {"columns": columns}}})
}

/// Answers all up to the request for the contents and returns that.
fn greet(
    session: &mut Session,
    server: Value,
    schema: Value,
) -> Result<(String, Value, u64), SessionError> {
    let greeting = requests(session);
    assert_eq!(
        greeting
            .iter()
            .map(|(method, ..)| &**method)
            .collect::<Vec<_>>(),
        ["set_db_change_aware", "monitor_cond"]
    );
    answer(session, greeting[0].2, json!({}))?;
    answer(session, greeting[1].2, server)?;
    let [(method, params, id)] = requests(session).try_into().unwrap();
    assert_eq!((&*method, params), ("get_schema", json!(["D"])));
    answer(session, id, schema)?;
    let [request] = requests(session).try_into().unwrap();
    Ok(request)
}

fn synced() -> Session {
    let mut session = session();
    let (method, params, id) = greet(&mut session, standalone(), schema(&["name"])).unwrap();
    assert_eq!(method, "monitor_cond_since");
    assert_eq!(
        params,
        json!(["D", "replica", {"T": [{"columns": ["name"]}]}, Uuid::nil()])
    );
    answer(
        &mut session,
        id,
        json!([false, LAST, {"T": {ROW: {"initial": {"name": "a"}}}}]),
    )
    .unwrap();
    assert!(matches!(session.next_event(), Some(Event::Changed(changes)) if changes.len() == 1));
    assert!(matches!(session.next_event(), Some(Event::Synced)));
    session
}

fn name(session: &Session) -> Option<&str> {
    session
        .snapshot()
        .row("T", ROW.parse().unwrap())?
        .get("name")?
        .as_str()
}

#[test]
fn a_server_without_monitor_cond_since_is_asked_by_monitor_cond() {
    let mut session = session();
    let (_, _, id) = greet(&mut session, standalone(), schema(&["name"])).unwrap();
    fail(
        &mut session,
        id,
        json!({"error": "unknown method", "details": "x"}),
    )
    .unwrap();
    let [(method, params, id)] = requests(&mut session).try_into().unwrap();
    assert_eq!(
        (&*method, params),
        (
            "monitor_cond",
            json!(["D", "replica", {"T": [{"columns": ["name"]}]}])
        )
    );
    answer(
        &mut session,
        id,
        json!({"T": {ROW: {"initial": {"name": "a"}}}}),
    )
    .unwrap();
    assert!(session.is_synced());
    notify(
        &mut session,
        "update2",
        json!(["replica", {"T": {ROW: {"modify": {"name": "b"}}}}]),
    )
    .unwrap();
    assert_eq!(name(&session), Some("b"));
}

#[test]
fn a_reconnect_asks_for_what_happened_since() {
    let mut session = synced();
    session.disconnected("test");
    assert_eq!(name(&session), Some("a"));
    session.connected(Instant::now());
    let (_, params, id) = greet(&mut session, standalone(), schema(&["name"])).unwrap();
    assert_eq!(params[3], json!(LAST));
    answer(
        &mut session,
        id,
        json!([true, LAST, {"T": {ROW: {"modify": {"name": "b"}}}}]),
    )
    .unwrap();
    assert_eq!(name(&session), Some("b"));
}

#[test]
fn new_columns_are_read_from_the_start() {
    let mut session = synced();
    session.connected(Instant::now());
    let (_, params, id) = greet(&mut session, standalone(), schema(&["name", "more"])).unwrap();
    assert_eq!(params[3], json!(Uuid::nil()));
    assert_eq!(
        session
            .snapshot()
            .row("T", ROW.parse().unwrap())
            .unwrap()
            .get("more"),
        None
    );
    answer(
        &mut session,
        id,
        json!([false, LAST, {"T": {ROW: {"initial": {"name": "a", "more": "m"}}}}]),
    )
    .unwrap();
    let row = session.snapshot().row("T", ROW.parse().unwrap()).unwrap();
    assert_eq!(row.get("more"), Some(&Datum::from("m")));
}

#[test]
fn after_nonsense_everything_is_read_again() {
    let mut session = synced();
    let nonsense = json!(["replica", LAST, {"T": {LAST: {"modify": {}}}}]);
    assert!(matches!(
        notify(&mut session, "update3", nonsense),
        Err(SessionError::Protocol(_))
    ));
    assert_eq!(name(&session), Some("a"));
    session.connected(Instant::now());
    let (_, params, _) = greet(&mut session, standalone(), schema(&["name"])).unwrap();
    assert_eq!(params[3], json!(Uuid::nil()));
}

#[test]
fn only_a_leader_that_is_not_behind_is_used() {
    let unfit = |session: &mut Session, server: Value| {
        session.connected(Instant::now());
        match greet(session, server, schema(&["name"])) {
            Err(SessionError::Unfit(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let mut session = session();
    assert_eq!(
        unfit(&mut session, member(ROW, 5, false)),
        "it is not the leader of its cluster"
    );
    session.connected(Instant::now());
    greet(&mut session, member(ROW, 7, true), schema(&["name"])).unwrap();
    assert_eq!(
        unfit(&mut session, member(ROW, 6, true)),
        "its data is old: log index 6, 7 was seen before"
    );
    let apart = json!({"name": "D", "model": "clustered", "connected": false, "leader": true});
    assert_eq!(
        unfit(&mut session, database("initial", apart)),
        "it is not connected to its cluster"
    );
    // A cluster that was made anew counts from the start.
    session.connected(Instant::now());
    greet(&mut session, member(LAST, 1, true), schema(&["name"])).unwrap();
}

#[test]
fn lost_leadership_ends_the_connection() {
    let mut session = session();
    let (_, _, id) = greet(&mut session, member(ROW, 5, true), schema(&["name"])).unwrap();
    answer(&mut session, id, json!([false, LAST, {}])).unwrap();
    let lost = json!(["server", database("modify", json!({"leader": false}))]);
    let error = notify(&mut session, "update2", lost).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to use this server: it is not the leader of its cluster"
    );
}

#[test]
fn transactions_end_with_the_connection_or_are_not_sent() {
    let mut session = synced();
    let insert = || {
        vec![Operation::insert_anew(
            "T",
            Columns::new().with("name", "x"),
        )]
    };
    let transaction = session.transact(insert()).unwrap();
    assert_eq!(requests(&mut session)[0].0, "transact");
    let empty = session.transact(Vec::new()).unwrap();
    assert!(requests(&mut session).is_empty());
    session.disconnected("test");
    assert_eq!(session.transact(insert()), Err(TransactError::NotConnected));
    let Some(Event::Ended {
        transaction: first,
        outcome,
    }) = session.next_event()
    else {
        panic!()
    };
    assert_eq!((first, outcome), (empty, Outcome::Unchanged(Vec::new())));
    let Some(Event::Ended {
        transaction: second,
        outcome: Outcome::Indeterminate { reason },
    }) = session.next_event()
    else {
        panic!()
    };
    assert_eq!(second, transaction);
    assert_eq!(reason, "the connection was lost before the answer: test");
}

#[test]
fn an_answer_that_makes_no_sense_is_no_commit() {
    let mut session = synced();
    let transaction = session
        .transact(vec![Operation::delete("T", Where::all())])
        .unwrap();
    assert!(answer(&mut session, transaction, json!([])).is_err());
    let Some(Event::Ended { outcome, .. }) = session.next_event() else {
        panic!()
    };
    assert!(matches!(outcome, Outcome::Indeterminate { .. }));
}

#[test]
fn a_server_that_does_not_introduce_itself_is_given_up() {
    let mut session = session();
    let start = Instant::now();
    assert_eq!(session.tick(start), Ok(()));
    assert!(session.deadline().is_some());
    assert_eq!(session.tick(start + 2 * GREETING), Err(SessionError::Slow));
    assert_eq!(synced().deadline(), None);
}

#[test]
fn requests_of_the_server_are_answered() {
    let mut session = synced();
    session
        .handle(br#"{"id":"e","method":"echo","params":[1]}"#)
        .unwrap();
    assert_eq!(
        session.take_output(),
        br#"{"result":[1],"error":null,"id":"e"}"#
    );
    session
        .handle(br#"{"id":5,"method":"reload","params":[]}"#)
        .unwrap();
    assert_eq!(
        session.take_output(),
        br#"{"result":null,"error":"unknown method","id":5}"#
    );
    notify(&mut session, "locked", json!(["l"])).unwrap();
    assert!(matches!(
        notify(&mut session, "monitor_canceled", json!(["replica"])),
        Err(SessionError::Unfit(_))
    ));
}
