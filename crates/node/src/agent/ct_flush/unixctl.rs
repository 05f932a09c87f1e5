//! Questions to ovs-vswitchd at its control socket, as `ovs-appctl` puts them: one object of JSON-RPC a question and an answer
//! (ovs-appctl(8); `ovs-vswitchd.<pid>.ctl` beside the bridges' management sockets).

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long an answer may be, in bytes: some two hundred thousand connections. The agent has 256 MiB.
const LENGTH: usize = 32 << 20;

/// How long ovs-vswitchd may take. It answers between other things that it does.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks the ovs-vswitchd whose run directory this is.
///
/// # Errors
/// It does not run, gives no answer within five seconds or one of more than 32 MiB, or refuses.
pub async fn ask(run_dir: &Path, method: &str, params: &[&str]) -> io::Result<String> {
    let pid = tokio::fs::read_to_string(run_dir.join("ovs-vswitchd.pid")).await?;
    let path = run_dir.join(format!("ovs-vswitchd.{}.ctl", pid.trim()));
    let answer = timeout(LIMIT, converse(&path, method, params)).await;
    answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn converse(path: &Path, method: &str, params: &[&str]) -> io::Result<String> {
    let mut stream = UnixStream::connect(path).await?;
    let question = json!({"id": 0, "method": method, "params": params});
    stream.write_all(question.to_string().as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if answer.len() > LENGTH {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // The object's end is the answer's, and nothing tells its length before. The text in it has no brace.
        if answer.last() != Some(&b'}') {
            continue;
        }
        let Ok(read) = serde_json::from_slice::<Value>(&answer) else {
            continue;
        };
        return match (&read["result"], &read["error"]) {
            (Value::String(text), Value::Null) => Ok(text.clone()),
            (_, error) => Err(io::Error::other(error.to_string())),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    async fn answered(answer: &'static str) -> io::Result<String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ovs-vswitchd.pid"), "7\n").unwrap();
        let listener = UnixListener::bind(dir.path().join("ovs-vswitchd.7.ctl")).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = vec![0; 200];
            let length = stream.read(&mut question).await.unwrap();
            let question: Value = serde_json::from_slice(&question[..length]).unwrap();
            assert_eq!(question["method"], "dpctl/dump-conntrack");
            // In two parts, as it comes when it is long.
            let (one, two) = answer.split_at(answer.len() / 2);
            for part in [one, two] {
                stream.write_all(part.as_bytes()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::join!(ask(dir.path(), "dpctl/dump-conntrack", &[]), server).0
    }

    #[tokio::test]
    async fn an_answer_is_its_text_and_a_refusal_an_error() {
        let text = answered(r#"{"id":0,"error":null,"result":"tcp,orig=()\n"}"#).await;
        assert_eq!(text.unwrap(), "tcp,orig=()\n");
        let refused = answered(r#"{"id":0,"error":"no datapaths","result":null}"#).await;
        assert!(refused.unwrap_err().to_string().contains("no datapaths"));
        assert!(answered("{\"id\"").await.is_err());
    }
}
