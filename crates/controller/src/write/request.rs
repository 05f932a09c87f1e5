//! One request to the API server, and what its answer means.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ycloud_compiler::{Event, Object};

use super::{FIELD_MANAGER, Written};

/// Longest wait for the answer to one request.
pub const LIMIT: Duration = Duration::from_secs(15);

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("no answer within {LIMIT:?}")]
    Timeout,
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

pub(super) async fn limited<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, RequestError> {
    match tokio::time::timeout(LIMIT, request).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(RequestError::Timeout),
    }
}

pub(super) fn has_code(error: &RequestError, code: u16) -> bool {
    matches!(error, RequestError::Kube(kube::Error::Api(status)) if status.code == code)
}

pub(super) fn describe(error: &RequestError) -> String {
    match error {
        RequestError::Kube(kube::Error::Api(status)) => {
            format!("{} ({})", status.message, status.code)
        }
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                source = cause.source();
            }
            text
        }
    }
}

/// What a request's failure means. The API server understood some, and will not do what they ask however often it is asked, until
/// somebody changes something: a quota, a webhook, its validation.
pub(super) fn failed(error: RequestError) -> Written {
    let text = describe(&error);
    match [400, 403, 405, 422]
        .iter()
        .any(|code| has_code(&error, *code))
    {
        true => Written::Refused(text),
        false => Written::Failed(text),
    }
}

pub(super) async fn create<K>(api: &Api<K>, object: K, wrap: fn(Arc<K>) -> Object) -> Written
where
    K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let name = object.meta().name.clone().unwrap_or_default();
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let result = limited(api.create(&params, &object)).await;
    // Not found: its namespace does not exist (yet).
    if let Err(error) = &result
        && has_code(error, 404)
    {
        return Written::Failed(describe(error));
    }
    answer(api, &name, result, wrap).await
}

/// Deletes the object of this UID.
pub(super) async fn delete<K>(api: &Api<K>, name: &str, uid: Option<String>) -> Written
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let params = DeleteParams {
        preconditions: uid.map(|uid| Preconditions {
            uid: Some(uid),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match limited(api.delete(name, &params)).await {
        Ok(_) => Written::Done(None),
        Err(error) if has_code(&error, 404) => Written::Gone,
        Err(error) if has_code(&error, 409) => Written::Gone,
        Err(error) => failed(error),
    }
}

pub(super) async fn change<K>(
    api: &Api<K>,
    name: &str,
    patch: Patch<Value>,
    subresource: Option<&'static str>,
    wrap: fn(Arc<K>) -> Object,
) -> Written
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let result = match subresource {
        Some(part) => limited(api.patch_subresource(part, name, &params, &patch)).await,
        None => limited(api.patch(name, &params, &patch)).await,
    };
    answer(api, name, result, wrap).await
}

/// What a request's result means; after a conflict, the object is read again.
pub(super) async fn answer<K>(
    api: &Api<K>,
    name: &str,
    result: Result<K, RequestError>,
    wrap: fn(Arc<K>) -> Object,
) -> Written
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let event = |mut object: K| {
        ycloud_api::mirror::reduce(object.meta_mut());
        Event::Apply(wrap(Arc::new(object)))
    };
    match result {
        Ok(object) => Written::Done(Some(event(object))),
        Err(error) if has_code(&error, 404) => Written::Gone,
        Err(error) if has_code(&error, 409) => match limited(api.get_opt(name)).await {
            Ok(Some(object)) => Written::Stale(Some(event(object))),
            Ok(None) => Written::Gone,
            Err(error) => failed(error),
        },
        Err(error) => failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_will_not_do_is_refused_and_told_in_its_words() {
        let answer = |code: u16| {
            let status = kube::core::Status::failure("exceeded quota: q", "Forbidden");
            failed(RequestError::Kube(kube::Error::Api(Box::new(
                status.with_code(code),
            ))))
        };
        for code in [400, 403, 405, 422] {
            let Written::Refused(words) = answer(code) else {
                panic!("{code}");
            };
            assert_eq!(words, format!("exceeded quota: q ({code})"));
        }
        for code in [401, 404, 409, 429, 500, 503] {
            assert!(matches!(answer(code), Written::Failed(_)), "{code}");
        }
        assert!(matches!(failed(RequestError::Timeout), Written::Failed(_)));
    }
}
