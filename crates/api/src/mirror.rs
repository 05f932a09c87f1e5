//! What nobody reads of an object that is kept in memory: taken away on the way in, by every part of ycloud.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The annotation in which kubectl keeps the whole object once more, as it was applied last. Source: kubectl apply.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Takes away the managed fields and [`LAST_APPLIED`]: most of what a small object such as a NetworkProbe needs of memory, and
/// there may be ten thousand. An object that went through this must not replace the one in the API server; patch that.
pub fn reduce(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
        if annotations.is_empty() {
            meta.annotations = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

    #[test]
    fn only_what_nobody_reads_is_taken_away() {
        let annotation = |name: &str| (name.to_owned(), "text".to_owned());
        let mut meta = ObjectMeta {
            name: Some("a".into()),
            annotations: Some([annotation(LAST_APPLIED), annotation("own")].into()),
            managed_fields: Some(vec![ManagedFieldsEntry::default()]),
            resource_version: Some("7".into()),
            ..ObjectMeta::default()
        };
        let mut expected = meta.clone();
        expected.managed_fields = None;
        expected.annotations = Some([annotation("own")].into());
        reduce(&mut meta);
        assert_eq!(meta, expected);
        meta.annotations = Some([annotation(LAST_APPLIED)].into());
        reduce(&mut meta);
        assert_eq!(meta.annotations, None);
    }
}
