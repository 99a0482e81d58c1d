//! PURE. "Did you mean": the known word nearest to a misspelt one.

/// Longest word that is compared, in characters: bounds the work on hostile input.
const WORD_CHARS_MAX: usize = 64;

/// The known word nearest to `word`, where it is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    if length == 0 || length > WORD_CHARS_MAX {
        return None;
    }
    let far_max = (length / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(far, _)| *far <= far_max)
        .min_by_key(|(far, _)| *far)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words (restricted
/// Damerau-Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(WORD_CHARS_MAX).collect();
    let right: Vec<char> = right.chars().take(WORD_CHARS_MAX).collect();
    let mut two_back = vec![0; right.len() + 1];
    let mut back: Vec<usize> = (0..=right.len()).collect();
    for i in 1..=left.len() {
        let mut row = vec![i; right.len() + 1];
        for j in 1..=right.len() {
            let replaced = back[j - 1] + usize::from(left[i - 1] != right[j - 1]);
            row[j] = replaced.min(back[j] + 1).min(row[j - 1] + 1);
            let swapped =
                i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1];
            if swapped {
                row[j] = row[j].min(two_back[j - 2] + 1);
            }
        }
        two_back = std::mem::replace(&mut back, row);
    }
    back[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["listen", "super_nodes", "data_dir", "name"];

    #[test]
    fn slips_of_the_finger_are_recognised() {
        let slips = [("lisen", "listen"), ("supernodes", "super_nodes"), ("nmae", "name")];
        for (slip, meant) in slips {
            assert_eq!(nearest(slip, KNOWN), Some(meant), "{slip}");
        }
    }

    #[test]
    fn strangers_are_not() {
        for word in ["", "budget", "x", &"n".repeat(WORD_CHARS_MAX + 1)] {
            assert_eq!(nearest(word, KNOWN), None, "{word:?}");
        }
    }
}
