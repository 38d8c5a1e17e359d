//! Cutting a failing list short: as long as it fails without a part of itself, that part goes.

/// A shortest list that was found, of at most `tries` tries, for which `fails` still holds.
pub fn shrink<T: Clone>(
    steps: Vec<T>,
    mut tries: usize,
    mut fails: impl FnMut(&[T]) -> bool,
) -> Vec<T> {
    let mut best = steps;
    let mut size = best.len().div_ceil(2);
    while size > 0 && tries > 0 {
        let mut at = 0;
        let mut shorter = false;
        while at < best.len() && tries > 0 {
            let end = (at + size).min(best.len());
            let without: Vec<T> = best[..at].iter().chain(&best[end..]).cloned().collect();
            tries -= 1;
            match fails(&without) {
                true => {
                    best = without;
                    shorter = true;
                }
                false => at = end,
            }
        }
        // The smallest parts are tried until none of them can go.
        if size > 1 || !shorter {
            size /= 2;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::shrink;

    #[test]
    fn only_what_matters_is_left() {
        let all: Vec<u32> = (0..500).collect();
        let fails = |list: &[u32]| [3, 77, 410].iter().all(|n| list.contains(n));
        assert_eq!(shrink(all.clone(), 1000, fails), [3, 77, 410]);
        let few = shrink(all, 5, fails);
        assert!(fails(&few), "what is answered still fails");
    }
}
