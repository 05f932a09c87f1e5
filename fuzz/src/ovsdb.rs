//! What the fuzz targets do with their input. `crates/ovsdb/tests/corpus.rs` does the same with the committed corpus.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use ycloud_ovsdb::scanner::{ScanError, Scanner};
use ycloud_ovsdb::session::{Event, Monitored, Session, SessionConfig};
use ycloud_ovsdb::{Columns, Operation, Row, Uuid};

/// Longest message that the scanner accepts here.
const LIMIT: usize = 512;

/// A stream cut into chunks gives the same messages as in one piece, and no more than the limit is buffered. The first
/// byte is the length of the chunks.
pub fn scanner(input: &[u8]) {
    let Some((length, stream)) = input.split_first() else {
        return;
    };
    let length = usize::from(*length).max(1);
    let whole = scan([stream].into_iter());
    let cut = scan(stream.chunks(length));
    assert_eq!(whole.0, cut.0);
    assert_eq!(whole.1.is_err(), cut.1.is_err());
}

fn scan<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Result<(), ScanError>) {
    let (mut scanner, mut messages) = (Scanner::new(LIMIT), Vec::new());
    for chunk in chunks {
        let result = scanner.push(chunk, &mut messages);
        assert!(messages.iter().all(|message| message.len() <= LIMIT));
        if result.is_err() {
            return (messages, result);
        }
        assert!(scanner.buffered() <= LIMIT);
    }
    (messages, Ok(()))
}

const GREETING: &str = r#"{"id":2,"error":null,"result":{"Database":{"00000000-0000-0000-0000-000000000001":{"initial":{
    "name":"D","model":"standalone","connected":true,"leader":true}}}}}"#;

const SCHEMA: &str = r#"{"id":3,"error":null,"result":{"name":"D","version":"1.0.0","tables":{
    "T":{"columns":{
        "text":{"type":"string"},"flag":{"type":"boolean"},"real":{"type":"real"},
        "maybe":{"type":{"key":"integer","min":0,"max":1}},
        "set":{"type":{"key":"string","min":0,"max":"unlimited"}},
        "refs":{"type":{"key":{"type":"uuid","refTable":"T"},"min":0,"max":"unlimited"}},
        "map":{"type":{"key":"string","value":"integer","min":0,"max":"unlimited"}}}}}}}"#;

/// A session that is past the greeting takes any messages: it does not panic, and the changes that it tells lead from each
/// snapshot to the next. The contents have request number 4; a transaction, sent once it is synced, has number 5.
pub fn codec(input: &[u8]) {
    let tables = BTreeMap::from([("T".to_owned(), Monitored::default())]);
    let mut session = Session::new(SessionConfig {
        database: "D".to_owned(),
        tables,
        leader_only: true,
    });
    session.connected(Instant::now());
    session
        .handle(GREETING.as_bytes())
        .expect("the greeting is sound");
    session
        .handle(SCHEMA.as_bytes())
        .expect("the schema is sound");
    let mut messages = Vec::new();
    // What is cut out before the stream breaks is handled.
    Scanner::new(1 << 20).push(input, &mut messages).ok();
    let mut model: BTreeMap<Uuid, Arc<Row>> = BTreeMap::new();
    let mut sent = false;
    for message in messages {
        let result = session.handle(&message);
        follow(&mut session, &mut model);
        if result.is_err() {
            break;
        }
        if session.is_synced() && !sent {
            sent = true;
            let operations = vec![
                Operation::insert_anew("T", Columns::new().with("text", "x")),
                Operation::select("T", Uuid::nil()),
                Operation::delete("T", Uuid::nil()),
            ];
            session.transact(operations).expect("it fits the schema");
        }
    }
    session.disconnected("the input is over");
    follow(&mut session, &mut model);
}

fn follow(session: &mut Session, model: &mut BTreeMap<Uuid, Arc<Row>>) {
    session.take_output();
    while let Some(event) = session.next_event() {
        let Event::Changed(changes) = event else {
            continue;
        };
        for change in changes {
            assert_ne!(change.old, change.new);
            let old = match change.new {
                Some(row) => model.insert(change.uuid, row),
                None => model.remove(&change.uuid),
            };
            assert_eq!(old, change.old);
        }
    }
    assert!(session.snapshot().table("T").iter().eq(model.values()));
}
