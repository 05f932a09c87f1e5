//! JSON merge patches, RFC 7386: the smallest one that leads from one value to another.

use serde_json::{Map, Value};

/// The patch that makes `new` of `old`; `None` if they are equal. Absent members become null; arrays are set whole.
/// A null inside an object of `new` counts as absent, since a merge patch cannot write one.
pub fn between(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for (name, value) in new.iter().filter(|(_, value)| !value.is_null()) {
        let former = old.get(name).unwrap_or(&Value::Null);
        if let Some(change) = between(former, value) {
            patch.insert(name.clone(), change);
        }
    }
    for (name, value) in old {
        let absent = new.get(name).is_none_or(Value::is_null);
        if absent && !value.is_null() {
            patch.insert(name.clone(), Value::Null);
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// RFC 7386 §2, word for word.
    pub(crate) fn apply(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        let Some(target) = target.as_object_mut() else {
            return;
        };
        for (name, value) in patch {
            if value.is_null() {
                target.remove(name);
            } else {
                apply(target.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            (0..4i64).prop_map(Value::from),
            "[a-b]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn only_what_differs_is_said() {
        let old = json!({"ip": "10.0.0.1", "phase": "Bound", "conditions": [1], "same": {"a": 1}});
        let new = json!({"ip": "10.0.0.1", "phase": "Up", "conditions": [1, 2], "same": {"a": 1}, "chassis": null});
        let patch = json!({"phase": "Up", "conditions": [1, 2]});
        assert_eq!(between(&old, &new), Some(patch));
        assert_eq!(
            between(
                &old,
                &json!({"phase": "Bound", "conditions": [1], "same": {"a": 1}})
            ),
            Some(json!({"ip": null}))
        );
        assert_eq!(between(&old, &old), None);
    }

    proptest! {
        #[test]
        fn applying_the_patch_gives_the_new_value(old in value(), new in value()) {
            let mut target = old.clone();
            if let Some(patch) = between(&old, &new) {
                apply(&mut target, &patch);
            }
            prop_assert_eq!(target, new);
        }
    }
}
