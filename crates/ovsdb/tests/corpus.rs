//! The committed corpus of the fuzz targets, so that neither rots.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

#[path = "../../../fuzz/src/ovsdb.rs"]
mod fuzz;

/// Bytes that mean something to a reader of JSON.
const BYTES: &[u8] = b"{}[]\",:019etu\\\x00\xff";

fn each(target: &str, run: fn(&[u8])) -> Result<()> {
    let folder = Path::new("../../fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in folder
        .read_dir()
        .with_context(|| format!("failed to read {}", folder.display()))?
    {
        let path = entry?.path();
        println!("{}", path.display());
        run(&std::fs::read(&path)?);
        inputs += 1;
    }
    ensure!(inputs >= 5, "only {inputs} inputs in {}", folder.display());
    Ok(())
}

#[test]
fn scanner() -> Result<()> {
    each("scanner", fuzz::scanner)
}

#[test]
fn codec() -> Result<()> {
    each("codec", fuzz::codec)
}

/// A few thousand inputs next to the corpus: not a fuzzer, but enough to find a slip.
#[test]
fn mutations_of_the_corpus() -> Result<()> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 16).unwrap_or_default() % below.max(1)
    };
    for (target, run) in [
        ("scanner", fuzz::scanner as fn(&[u8])),
        ("codec", fuzz::codec),
    ] {
        let folder = Path::new("../../fuzz/corpus").join(target);
        let mut inputs: Vec<Vec<u8>> = Vec::new();
        for entry in folder.read_dir()? {
            inputs.push(std::fs::read(entry?.path())?);
        }
        inputs.sort();
        for _ in 0..3000 {
            let mut input = inputs[next(inputs.len())].clone();
            for _ in 0..=next(3) {
                let at = next(input.len());
                match next(4) {
                    0 => drop(input.drain(at..(at + next(9)).min(input.len()))),
                    1 => input[at] = BYTES[next(BYTES.len())],
                    2 => {
                        let other = &inputs[next(inputs.len())];
                        let from = next(other.len());
                        let piece = other[from..(from + next(40)).min(other.len())].to_vec();
                        drop(input.splice(at..at, piece));
                    }
                    _ => input.truncate(at.max(1)),
                }
                if input.is_empty() {
                    input.push(b'{');
                }
            }
            run(&input);
        }
    }
    Ok(())
}
