//! The committed corpus of the fuzz target `answer`, and a few inputs next to it.

use std::path::Path;

#[path = "../../../fuzz/src/answer.rs"]
mod answer;

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new("../../fuzz/corpus/answer").read_dir();
    let files = folder.expect("a corpus").map(|file| file.expect("a file"));
    let read = |path: std::path::PathBuf| std::fs::read(path).expect("an input");
    let mut inputs: Vec<Vec<u8>> = files.map(|file| read(file.path())).collect();
    inputs.sort();
    assert!(inputs.len() >= 10, "only {} inputs", inputs.len());
    inputs
}

#[test]
fn no_answer_of_the_corpus_is_too_strange() {
    for input in corpus() {
        answer::answer(&input);
    }
}

/// Each input with one byte changed, at a few hundred places: not a fuzzer, but enough to find a slip.
#[test]
fn nor_is_one_next_to_it() {
    for input in corpus() {
        for at in (2..input.len()).step_by(3) {
            let mut other = input.clone();
            other[at] ^= 0x41;
            answer::answer(&other);
        }
    }
}
