//! Whether KubeVirt is installed, and the VirtualMachineInstances if it is.
//!
//! ```text
//!   watch of one CustomResourceDefinition's metadata ──┬─ it is there ─► watch of VirtualMachineInstances ─┐
//!                                                      └─ it is not ──► that watch ends ───────────────────┴─► News
//! ```
//!
//! Level-triggered: KubeVirt may come and go while this runs. Nothing else waits for it: only YusurServices that mean a `VM`
//! are planned for once it is known (see [`super::world::World::knows`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use ycloud_api::YusurService;
use ycloud_api::backend::{Backend, BackendKind};
use ycloud_api::kubevirt::{DEFINITION, InstanceCondition, PAUSED, VirtualMachineInstance};
use ycloud_compiler::ObjectKey;
use ycloud_compiler::endpoint::selects_vmi;

use super::LONGEST_WAIT;
use super::labelled::{Candidates, Labelled};
use super::world::News;
use crate::watch::{Change, Closed, Key, watch};

/// What is watched: that the kind exists.
type Definition = PartialObjectMeta<CustomResourceDefinition>;

/// How many changes of one CustomResourceDefinition may wait.
const WAITING: usize = 4;

/// How long to wait for a kind that is not served yet; it doubles up to the controller's longest wait.
const NOT_SERVED_WAIT: Duration = Duration::from_millis(200);

/// What is known of VirtualMachineInstances.
#[derive(Debug)]
pub enum Instances {
    /// The kind exists, and is served.
    Found,
    /// It does not, or no more.
    Gone,
    /// A VirtualMachineInstance, reduced by [`reduce_vmi`].
    Changed(Box<Change<VirtualMachineInstance>>),
}

/// Tells of KubeVirt and its VirtualMachineInstances, until nobody listens.
pub async fn discover(client: Client, news: mpsc::Sender<News>) {
    let (sender, definitions) = mpsc::channel(WAITING);
    let api: Api<Definition> = Api::all(client.clone());
    if may_not_look(&api).await {
        // Nobody's machines wait for a permission that an older release did without. The watch below finds out when it comes.
        tracing::warn!(
            definition = DEFINITION,
            "may not look whether KubeVirt is installed: taken as not; apply deploy/rbac"
        );
        if tell(&news, Instances::Gone).await.is_err() {
            return;
        }
    }
    let one = watcher::Config::default().fields(&format!("metadata.name={DEFINITION}"));
    let deliver = |change| {
        let sent = sender.send(change);
        async { sent.await.map_err(|_| Closed) }
    };
    tokio::select! {
        () = watch(api, one, |_: &mut Definition| {}, deliver) => {}
        () = tell_of(definitions, &client, &news) => {}
    }
}

/// Tells whether the kind exists, and of its objects while it does, until nobody listens.
async fn tell_of(
    mut definitions: mpsc::Receiver<Change<Definition>>,
    client: &Client,
    news: &mpsc::Sender<News>,
) {
    let mut instances = JoinSet::new();
    loop {
        let change = tokio::select! {
            change = definitions.recv() => change,
            Some(ended) = instances.join_next() => match ended {
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // Nobody listens.
                Ok(()) | Err(_) => return,
            },
        };
        let Some(change) = change else { return };
        let told = match change {
            Change::Apply(_) if instances.is_empty() => {
                tracing::info!(definition = DEFINITION, "KubeVirt is installed");
                instances.spawn(follow(client.clone(), news.clone()));
                Ok(())
            }
            Change::Delete(_) => {
                tracing::info!(
                    definition = DEFINITION,
                    "KubeVirt is not installed any more"
                );
                // Nothing of it may come behind its end.
                instances.shutdown().await;
                tell(news, Instances::Gone).await
            }
            Change::Synced if instances.is_empty() => tell(news, Instances::Gone).await,
            Change::Apply(_) | Change::Synced => Ok(()),
        };
        if told.is_err() {
            return;
        }
    }
}

async fn may_not_look(api: &Api<Definition>) -> bool {
    let looked = api.get_opt(DEFINITION).await;
    looked.is_err_and(|error| is(&error, 403))
}

async fn tell(news: &mpsc::Sender<News>, what: Instances) -> Result<(), Closed> {
    let sent = news.send(News::Instances(what)).await;
    sent.map_err(|_| Closed)
}

/// Whether the API server answered with this code.
fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// Watches VirtualMachineInstances, from when the API server serves them: it needs a moment for a new kind.
async fn follow(client: Client, news: mpsc::Sender<News>) {
    let api: Api<VirtualMachineInstance> = Api::all(client);
    let one = ListParams::default().limit(1);
    let mut wait = NOT_SERVED_WAIT;
    while matches!(api.list_metadata(&one).await, Err(error) if is(&error, 404)) {
        // A release without this version must not keep others waiting: what is not served is not there.
        if tell(&news, Instances::Gone).await.is_err() {
            return;
        }
        tokio::time::sleep(wait).await;
        wait = LONGEST_WAIT.min(wait * 2);
    }
    if tell(&news, Instances::Found).await.is_err() {
        return;
    }
    let deliver = |change| tell(&news, Instances::Changed(Box::new(change)));
    watch(api, watcher::Config::default(), reduce_vmi, deliver).await;
}

/// Takes away what nobody here reads of a VirtualMachineInstance. Its spec is not even parsed.
pub fn reduce_vmi(vmi: &mut VirtualMachineInstance) {
    let meta = std::mem::take(&mut vmi.metadata);
    vmi.metadata.name = meta.name;
    vmi.metadata.namespace = meta.namespace;
    vmi.metadata.uid = meta.uid;
    vmi.metadata.resource_version = meta.resource_version;
    vmi.metadata.labels = meta.labels;
    vmi.metadata.deletion_timestamp = meta.deletion_timestamp;
    let paused = vmi.paused();
    if let Some(status) = &mut vmi.status {
        let condition = || InstanceCondition {
            type_: PAUSED.into(),
            status: "True".into(),
        };
        status.conditions = paused.then(|| vec![condition()]);
    }
}

/// Every VirtualMachineInstance, if the kind exists.
#[derive(Debug, Default)]
pub struct Vmis {
    found: bool,
    known: bool,
    all: Labelled<VirtualMachineInstance>,
    /// Namespace and UID → name.
    by_uid: BTreeMap<(String, String), String>,
}

impl Vmis {
    /// Whether the kind exists.
    pub fn found(&self) -> bool {
        self.found
    }

    /// Whether it is known which there are: all, or that the kind does not exist.
    pub fn known(&self) -> bool {
        self.known
    }

    /// That the kind exists. Those of a kind that is new are all new, so that what is known stays known.
    pub fn find(&mut self) {
        self.found = true;
    }

    /// That all were listed.
    pub fn list(&mut self) {
        self.known = true;
    }

    /// That the kind does not exist; those there were.
    pub fn lose(&mut self) {
        *self = Self {
            known: true,
            ..Self::default()
        };
    }

    /// Takes one in; its key, and what it was before.
    pub fn insert(
        &mut self,
        vmi: VirtualMachineInstance,
    ) -> (ObjectKey, Option<Arc<VirtualMachineInstance>>) {
        let uid = vmi.metadata.uid.clone();
        let (key, former) = self.all.insert(vmi);
        self.index(&key, former.as_deref(), uid);
        (key, former)
    }

    /// Forgets one; its key, and what it was.
    pub fn remove(&mut self, key: Key) -> (ObjectKey, Option<Arc<VirtualMachineInstance>>) {
        let (key, former) = self.all.remove(key);
        self.index(&key, former.as_deref(), None);
        (key, former)
    }

    fn index(
        &mut self,
        key: &ObjectKey,
        former: Option<&VirtualMachineInstance>,
        uid: Option<String>,
    ) {
        let before = former.and_then(|former| former.metadata.uid.clone());
        if before == uid {
            return;
        }
        let place = |uid| (key.namespace.clone(), uid);
        if let Some(before) = before {
            self.by_uid.remove(&place(before));
        }
        if let Some(uid) = uid {
            self.by_uid.insert(place(uid), key.name.clone());
        }
    }

    /// A VirtualMachineInstance.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<VirtualMachineInstance>> {
        self.all.get(namespace, name)
    }

    /// The one with this UID.
    pub fn of_uid(&self, namespace: &str, uid: &str) -> Option<&Arc<VirtualMachineInstance>> {
        let place = (namespace.to_owned(), uid.to_owned());
        self.get(namespace, self.by_uid.get(&place)?)
    }

    /// Those that `ysvc` selects, in the order of namespace and name.
    pub fn selected<'a>(
        &'a self,
        ysvc: &'a YusurService,
    ) -> BTreeMap<(&'a str, &'a str), &'a VirtualMachineInstance> {
        let own = ysvc.metadata.namespace.as_deref().unwrap_or_default();
        let mut found = BTreeMap::new();
        for backend in ysvc.spec.backends.iter().filter(|backend| is_vm(backend)) {
            let namespace = backend.namespace.as_deref().unwrap_or(own);
            let candidates = self.candidates(namespace, backend).into_iter();
            let chosen = candidates.filter(|(_, vmi)| selects_vmi(ysvc, vmi));
            found.extend(chosen.map(|(name, vmi)| ((namespace, name), vmi)));
        }
        found
    }

    /// At least those that `backend` means.
    fn candidates(
        &self,
        namespace: &str,
        backend: &Backend,
    ) -> Candidates<'_, VirtualMachineInstance> {
        match (&backend.name, &backend.selector) {
            (Some(name), _) => self.all.named(namespace, [name]),
            (None, Some(selector)) => self.all.matching(namespace, selector),
            (None, None) => Candidates::new(),
        }
    }
}

/// Whether `backend` may be VirtualMachineInstances.
pub fn is_vm(backend: &Backend) -> bool {
    backend.kind == BackendKind::VM
}
