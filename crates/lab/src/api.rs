//! The API server of a lab, asked by a connection that stays open: who waits for something asks
//! hundreds of times, and need not start a kubectl for each.

use std::fmt;
use std::path::Path;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::DynamicObject;
use kube::discovery::{ApiResource, Discovery, Scope};
use kube::{Api, Client, Config, Error};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

/// Who writes what [`ApiServer::apply`] writes.
const FIELD_MANAGER: &str = "ycloud-lab";
/// How long the API server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client of a lab's API server, as its administrator. Calls wait for the answer.
pub struct ApiServer {
    client: Client,
    /// Where the client's connections are served: dropped after the client.
    runtime: Runtime,
    kinds: RwLock<Vec<Kind>>,
}

/// A kind of objects that the API server has.
#[derive(Clone, Debug)]
struct Kind {
    resource: ApiResource,
    namespaced: bool,
}

impl Kind {
    /// Whether kubectl would understand `word` as this kind: its plural or singular name in any
    /// case, with or without the group behind it.
    fn is_called(&self, word: &str) -> bool {
        let word = word.to_lowercase();
        let (name, group) = word.split_once('.').unwrap_or((&word, ""));
        let named = name == self.resource.plural || name == self.resource.kind.to_lowercase();
        let short = name == "ysvc" && self.resource.kind == "YusurService";
        (named || short) && (group.is_empty() || group == self.resource.group)
    }
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer").finish_non_exhaustive()
    }
}

impl ApiServer {
    /// That of a kubeconfig.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("failed to start a runtime")?;
        // Another one that was chosen before serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(path)
                .with_context(|| format!("failed to read {}", path.display()))?;
            let options = KubeConfigOptions::default();
            let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
            config.connect_timeout = Some(PATIENCE);
            config.read_timeout = Some(PATIENCE);
            // One that the environment names could not reach the lab.
            config.proxy_url = None;
            anyhow::Ok(Client::try_from(config)?)
        })?;
        Ok(Self {
            client,
            runtime,
            kinds: RwLock::default(),
        })
    }

    /// The object `name` of `kind` ("pod", "Eip", "networkprobes"), in `namespace`, which is empty
    /// for kinds of the whole cluster; None where there is none.
    ///
    /// # Errors
    /// When the kind is not known, or the API server says no or nothing.
    pub fn get(&self, namespace: &str, kind: &str, name: &str) -> Result<Option<Value>> {
        let api = self.objects(namespace, &self.kind(kind)?);
        let found = self.runtime.block_on(api.get_opt(name))?;
        found
            .map(|object| Ok(serde_json::to_value(object)?))
            .transpose()
    }

    /// The objects of `kind` in `namespace`, empty for all, with labels that `selector` chooses,
    /// empty for all.
    ///
    /// # Errors
    /// As [`ApiServer::get`].
    pub fn list(&self, namespace: &str, kind: &str, selector: &str) -> Result<Vec<Value>> {
        let api = self.objects(namespace, &self.kind(kind)?);
        let list = ListParams::default().labels(selector);
        let found = self.runtime.block_on(api.list(&list))?;
        let values = found.items.into_iter().map(serde_json::to_value);
        Ok(values.collect::<Result<_, _>>()?)
    }

    /// Makes the objects of `yaml` what it says, and returns them as they are then. Objects of
    /// namespaced kinds that name no namespace are of `default`. What another client wrote is taken
    /// over.
    ///
    /// # Errors
    /// When `yaml` is none, a kind is not known, or the API server says no, in its own words. Objects before that one stay.
    pub fn apply(&self, yaml: &str) -> Result<Vec<Value>> {
        let mut applied = Vec::new();
        for document in serde_yaml::Deserializer::from_str(yaml) {
            let value = Value::deserialize(document).context("failed to understand the YAML")?;
            if value.is_null() {
                continue;
            }
            let items = match value["kind"] == "List" {
                true => value["items"].as_array().cloned().unwrap_or_default(),
                false => vec![value],
            };
            for item in &items {
                applied.push(self.apply_one(item)?);
            }
        }
        Ok(applied)
    }

    /// Makes an object that is not there, with less work for the API server than [`ApiServer::apply`].
    ///
    /// # Errors
    /// As [`ApiServer::apply`], and when it is there.
    pub fn create(&self, object: &Value) -> Result<()> {
        let (api, _) = self.objects_of(object)?;
        let object: DynamicObject = serde_json::from_value(object.clone())?;
        let created = self
            .runtime
            .block_on(api.create(&PostParams::default(), &object));
        created.map(drop).map_err(in_its_own_words)
    }

    fn apply_one(&self, object: &Value) -> Result<Value> {
        let (api, name) = self.objects_of(object)?;
        let mut how = PatchParams::apply(FIELD_MANAGER).force();
        how.field_validation = Some(kube::api::ValidationDirective::Strict);
        let patch = Patch::Apply(object);
        let patched = self.runtime.block_on(api.patch(&name, &how, &patch));
        let answer = patched.map_err(in_its_own_words)?;
        Ok(serde_json::to_value(answer)?)
    }

    /// Where an object belongs, and its name.
    fn objects_of(&self, object: &Value) -> Result<(Api<DynamicObject>, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let version = text(&object["apiVersion"]);
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let kind = self.kind(&format!("{}.{group}", text(&object["kind"])))?;
        let namespace = match (kind.namespaced, text(&object["metadata"]["namespace"])) {
            (true, none) if none.is_empty() => "default".to_owned(),
            (_, namespace) => namespace,
        };
        let name = text(&object["metadata"]["name"]);
        Ok((self.objects(&namespace, &kind), name))
    }

    /// Changes fields of an object: a merge patch (RFC 7386).
    ///
    /// # Errors
    /// As [`ApiServer::apply`].
    pub fn patch(&self, namespace: &str, kind: &str, name: &str, fields: &Value) -> Result<Value> {
        let api = self.objects(namespace, &self.kind(kind)?);
        let how = PatchParams::default();
        let patch = Patch::Merge(fields);
        let patched = self.runtime.block_on(api.patch(name, &how, &patch));
        let answer = patched.map_err(in_its_own_words)?;
        Ok(serde_json::to_value(answer)?)
    }

    /// Tells the API server to delete an object, and does not wait for it to go. `grace` is in
    /// seconds; None leaves it to the object. Whether it was there.
    ///
    /// # Errors
    /// As [`ApiServer::apply`].
    pub fn delete(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
        grace: Option<u32>,
    ) -> Result<bool> {
        let api = self.objects(namespace, &self.kind(kind)?);
        let how = DeleteParams {
            grace_period_seconds: grace,
            ..DeleteParams::background()
        };
        match self.runtime.block_on(api.delete(name, &how)) {
            Ok(_) => Ok(true),
            Err(Error::Api(status)) if status.is_not_found() => Ok(false),
            Err(error) => Err(in_its_own_words(error)),
        }
    }

    /// Tells the API server to delete all objects of `kind` in a namespace, and does not wait for them to go.
    ///
    /// # Errors
    /// As [`ApiServer::apply`], and without a namespace: nobody means the whole cluster.
    pub fn delete_all(&self, namespace: &str, kind: &str) -> Result<()> {
        if namespace.is_empty() {
            bail!("of which namespace shall all {kind} be deleted?");
        }
        let api = self.objects(namespace, &self.kind(kind)?);
        let (how, all) = (DeleteParams::background(), ListParams::default());
        let told = self.runtime.block_on(api.delete_collection(&how, &all));
        told.map(drop).map_err(in_its_own_words)
    }

    /// Waits until an object is gone, or another one has its name; not for one of that `uid` alone
    /// if it is empty.
    ///
    /// # Errors
    /// As [`ApiServer::get`], and when it is still there after `limit`: with what it waits for.
    pub fn wait_gone(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
        uid: &str,
        limit: Duration,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            let left = self.get(namespace, kind, name)?;
            let left = left.filter(|left| uid.is_empty() || left["metadata"]["uid"] == uid);
            let Some(left) = left else { return Ok(()) };
            if start.elapsed() > limit {
                let waits =
                    json!({"finalizers": left["metadata"]["finalizers"], "status": left["status"]});
                bail!("{kind} {namespace}/{name} is still there after {limit:?}: {waits}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether the API server says that it is ready.
    pub fn is_ready(&self) -> bool {
        let asked = http::Request::get("/readyz").body(Vec::new());
        asked.is_ok_and(|asked| {
            self.runtime
                .block_on(self.client.request_text(asked))
                .is_ok()
        })
    }

    fn objects(&self, namespace: &str, kind: &Kind) -> Api<DynamicObject> {
        let client = self.client.clone();
        match kind.namespaced && !namespace.is_empty() {
            true => Api::namespaced_with(client, namespace, &kind.resource),
            false => Api::all_with(client, &kind.resource),
        }
    }

    /// Kinds are read when one is asked for that is not known: a definition may have come since.
    fn kind(&self, word: &str) -> Result<Kind> {
        if let Some(known) = self.known(word) {
            return Ok(known);
        }
        let discovery = Discovery::new(self.client.clone()).run_aggregated();
        let discovery = self.runtime.block_on(discovery)?;
        let kinds = discovery
            .groups_alphabetical()
            .into_iter()
            .flat_map(|group| {
                group
                    .recommended_resources()
                    .into_iter()
                    .map(|(resource, can)| Kind {
                        resource,
                        namespaced: can.scope == Scope::Namespaced,
                    })
            });
        *self.kinds.write().unwrap_or_else(PoisonError::into_inner) = kinds.collect();
        let known = self.known(word);
        known.with_context(|| format!("the API server has no kind {word:?}"))
    }

    fn known(&self, word: &str) -> Option<Kind> {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        kinds.iter().find(|kind| kind.is_called(word)).cloned()
    }
}

/// A refusal as the API server words it, without what the client says around it.
fn in_its_own_words(error: Error) -> anyhow::Error {
    match error {
        Error::Api(status) => anyhow::anyhow!("{}", status.message),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_called_by_its_names_with_and_without_its_group() {
        let kind = Kind {
            resource: ApiResource {
                group: "iaas.yusur.io".into(),
                version: "v1".into(),
                api_version: "iaas.yusur.io/v1".into(),
                kind: "YusurService".into(),
                plural: "yusurservices".into(),
            },
            namespaced: true,
        };
        for word in ["ysvc", "YusurService", "yusurservices.iaas.yusur.io"] {
            assert!(kind.is_called(word), "{word}");
        }
        for word in ["service", "services", "ysvc.apps", "yusurservices.v1"] {
            assert!(!kind.is_called(word), "{word}");
        }
    }
}
