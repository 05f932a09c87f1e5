//! Servers that are broken or worse: each is named, none does harm, and the next one is found.

mod support;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use support::{Server, schema, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use ycloud_ovsdb::{Client, Config, Remote, State};

const LIMIT: usize = 4 << 20;

/// What a bad server does with each connection.
#[derive(Clone)]
enum Behaviour {
    Close,
    Stall,
    /// Sends these bytes at once.
    Say(Arc<[u8]>),
    /// Sends so many bytes of one string.
    Flood(usize),
    /// Answers the first request that has an id with this result, then says more.
    Answer(&'static str, String),
}

/// A listener that misbehaves. Returns its remote.
async fn bad_server(behaviour: Behaviour) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let remote = format!("tcp:{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let behaviour = behaviour.clone();
            // How the connection ends is for the client to say.
            tokio::spawn(async move { misbehave(stream, behaviour).await.ok() });
        }
    });
    Ok(remote)
}

async fn misbehave(mut stream: TcpStream, behaviour: Behaviour) -> std::io::Result<()> {
    match behaviour {
        Behaviour::Close => return Ok(()),
        Behaviour::Stall => {}
        Behaviour::Say(bytes) => stream.write_all(&bytes).await?,
        Behaviour::Flood(bytes) => {
            stream
                .write_all(b"{\"id\":1,\"error\":null,\"result\":\"")
                .await?;
            let chunk = vec![b'x'; 1 << 20];
            for _ in 0..bytes >> 20 {
                stream.write_all(&chunk).await?;
            }
        }
        Behaviour::Answer(result, more) => {
            // The client numbers its requests from 1; 1 is set_db_change_aware, 2 the monitor of _Server.
            let answer = format!(
                "{{\"id\":1,\"result\":{{}},\"error\":null}}{{\"id\":2,\"result\":{result},\"error\":null}}{more}"
            );
            stream.write_all(answer.as_bytes()).await?;
        }
    }
    let mut ignored = [0; 4096];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

const DATABASE_ROW: &str = r#"{"Database":{"00000000-0000-0000-0000-000000000001":{"initial":{
    "name":"Shapes","model":"standalone","connected":true,"leader":true}}}}"#;

/// The client's third request is for the schema.
const SCHEMA: &str = r#"{"id":3,"error":null,"result":{"name":"Shapes","version":"1.0.0",
    "tables":{"Shape":{"columns":{"name":{"type":"string"}}}}}}"#;

fn answer(result: &'static str, more: &str) -> Behaviour {
    Behaviour::Answer(result, more.to_owned())
}

/// A server that is sound until it sends these contents, and then more.
fn contents(tables: &str, more: &str) -> Behaviour {
    let zero = "00000000-0000-0000-0000-000000000000";
    let contents = format!(r#"{{"id":4,"error":null,"result":[false,"{zero}",{tables}]}}"#);
    Behaviour::Answer(DATABASE_ROW, format!("{SCHEMA}{contents}{more}"))
}

fn cases() -> Vec<(&'static str, Behaviour, &'static str)> {
    let say = |text: &str| Behaviour::Say(text.as_bytes().into());
    vec![
        (
            "closes",
            Behaviour::Close,
            "the server closed the connection",
        ),
        ("stalls", Behaviour::Stall, "failed to hear from the server"),
        (
            "speaks HTTP",
            say("HTTP/1.1 400 Bad Request\r\n\r\n"),
            "it starts with \"HTTP/1.1 400 Bad Request\"",
        ),
        (
            "sends no text",
            Behaviour::Say((0..=255).collect()),
            "it starts with",
        ),
        (
            "sends broken JSON",
            say("{\"id\":,}"),
            "a message is no JSON-RPC",
        ),
        (
            "nests",
            Behaviour::Say(format!("{{\"a\":{}", "[".repeat(1000)).into_bytes().into()),
            "nested deeper than",
        ),
        (
            "sends 100 MB",
            Behaviour::Flood(100 << 20),
            "it is longer than 4194304 bytes",
        ),
        (
            "has no _Server",
            say(r#"{"id":2,"result":null,"error":"unknown database"}"#),
            "it has no database _Server",
        ),
        (
            "serves another database",
            answer("{}", ""),
            "it does not serve database Shapes",
        ),
        (
            "sends a broken row",
            answer(r#"{"Database":{"x":1}}"#, ""),
            "an update of _Server is broken",
        ),
        (
            "sends a broken schema",
            answer(DATABASE_ROW, r#"{"id":3,"error":null,"result":{"name":5}}"#),
            "its schema is broken",
        ),
        (
            "sends contents of another shape",
            contents(r#"{"Shape":[]}"#, ""),
            "its contents are broken",
        ),
        (
            "changes a row that is not there",
            contents(
                "{}",
                r#"{"method":"update3","id":null,"params":["replica","00000000-0000-0000-0000-000000000000",
                {"Shape":{"00000000-0000-0000-0000-000000000002":{"modify":{"name":"x"}}}}]}"#,
            ),
            "which is not there",
        ),
        (
            "updates what is not monitored",
            answer(
                DATABASE_ROW,
                r#"{"method":"update2","id":null,"params":["other",{}]}"#,
            ),
            "it is of no monitor of ours",
        ),
    ]
}

fn start(remotes: &str) -> Result<Client> {
    let mut config =
        Config::new(Remote::parse_list(remotes)?, schema::DATABASE).monitor_all("Shape");
    config.probe_interval = Some(Duration::from_millis(200));
    config.max_message = LIMIT;
    Ok(Client::spawn(config))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_named_in_words() -> Result<()> {
    for (name, behaviour, words) in cases() {
        let client = start(&bad_server(behaviour).await?)?;
        let mut connection = client.connection();
        let named = connection.wait_for(|connection| {
            connection
                .last_error
                .as_ref()
                .is_some_and(|error| error.contains(words))
        });
        if within(10, name, named).await.is_err() {
            anyhow::bail!("a server that {name}: {:?}", client.connection().borrow());
        }
        ensure!(client.connection().borrow().state != State::Synced);
        ensure!(
            client
                .transact(vec![ycloud_ovsdb::Operation::comment("x")])
                .await
                .is_err()
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sound_one_among_them_is_found() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Server::standalone(dir.path(), &schema::write(dir.path())?)?;
    for (name, behaviour, _) in cases() {
        let client = start(&format!(
            "{},{}",
            bad_server(behaviour).await?,
            server.unix()
        ))?;
        let mut connection = client.connection();
        let good = server.unix();
        let found = connection.wait_for(|connection| {
            connection.state == State::Synced
                && connection
                    .remote
                    .as_ref()
                    .is_some_and(|remote| remote.to_string() == good)
        });
        within(
            20,
            &format!("the sound server beside one that {name}"),
            found,
        )
        .await??;
    }
    Ok(())
}

/// A server that probes right behind a large answer gets its reply before the answer is worked on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_do_not_wait_for_large_updates() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut config = Config::new(
        Remote::parse_list(&format!("tcp:{}", listener.local_addr()?))?,
        schema::DATABASE,
    );
    config = config.monitor_all("Shape");
    let client = Client::spawn(config);
    let (mut stream, _) = listener.accept().await?;
    let rows: Vec<String> = (0..100_000u128)
        .map(|id| {
            format!(
                r#""{}":{{"initial":{{"name":"row {id}"}}}}"#,
                ycloud_ovsdb::Uuid::from_u128(id << 100)
            )
        })
        .collect();
    let Behaviour::Answer(row, more) =
        contents(&format!(r#"{{"Shape":{{{}}}}}"#, rows.join(",")), "")
    else {
        panic!("contents are an answer");
    };
    let probe = r#"{"method":"echo","params":["are you there"],"id":"echo"}"#;
    let answer = format!(r#"{{"id":2,"result":{row},"error":null}}{more}{probe}"#);
    stream.write_all(answer.as_bytes()).await?;
    let (mut heard, mut chunk) = (Vec::new(), [0; 4096]);
    while !heard.windows(13).any(|part| part == b"are you there") {
        let length = within(10, "the reply to the probe", stream.read(&mut chunk)).await??;
        ensure!(length > 0, "the client closed the connection");
        heard.extend_from_slice(&chunk[..length]);
    }
    ensure!(
        client.connection().borrow().state == State::Syncing,
        "the answer was worked on first"
    );
    within(30, "the first sync", client.synced()).await??;
    ensure!(client.snapshot().table("Shape").len() == 100_000);
    Ok(())
}
