//! Theil–Sen: the median of the slopes between all pairs of points. Up to 29% of the points may be outliers (a deploy,
//! a garbage collection) before it moves. The interval is Sen's, from the distribution of Kendall's rank correlation (Sen 1968,
//! JASA 63:1379): 95% for independent errors. Successive readings of a process are not independent, so it is read as "at least
//! this wide".

use super::Estimate;

/// Two-sided 95% of the normal distribution.
const Z: f64 = 1.96;

/// Slope of `y` over `x`, or `None` where fewer than two different `x` were seen.
pub fn slope(points: &[(f64, f64)]) -> Option<Estimate> {
    slope_within(&[points])
}

/// The same over several series that share a slope and nothing else, such as the lives of a process before and after a
/// restart: only points of one series are paired.
pub fn slope_within(series: &[&[(f64, f64)]]) -> Option<Estimate> {
    let mut slopes = Vec::new();
    let (mut variance, mut samples) = (0.0, 0);
    for points in series {
        let before = slopes.len();
        for (index, (x1, y1)) in points.iter().enumerate() {
            slopes.extend(
                points[index + 1..].iter().filter(|(x2, _)| x1 != x2).map(|(x2, y2)| (y2 - y1) / (x2 - x1)),
            );
        }
        if slopes.len() > before {
            let n = points.len() as f64;
            variance += n * (n - 1.0) * (2.0 * n + 5.0) / 18.0;
            samples += points.len() as u64;
        }
    }
    if slopes.is_empty() {
        return None;
    }
    slopes.sort_by(f64::total_cmp);
    let count = slopes.len();
    let middle = count / 2;
    let value = if count % 2 == 1 { slopes[middle] } else { (slopes[middle - 1] + slopes[middle]) / 2.0 };
    let reach = Z * variance.sqrt();
    let least = ((count as f64 - reach) / 2.0).floor().max(0.0) as usize;
    let most = (((count as f64 + reach) / 2.0).ceil() as usize).min(count - 1);
    Some(Estimate { value, least: slopes[least], most: slopes[most], samples })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outliers_do_not_move_it() {
        let mut points: Vec<(f64, f64)> = (0..20).map(|x| (f64::from(x), 3.0 * f64::from(x) + 7.0)).collect();
        points[3].1 = 1e9;
        points[17].1 = -1e9;
        let slope = slope(&points).expect("defined");
        assert!((slope.value - 3.0).abs() < 1e-9);
        assert_eq!(slope.samples, 20);
    }

    #[test]
    fn one_place_has_no_slope() {
        assert_eq!(slope(&[]), None);
        assert_eq!(slope(&[(1.0, 1.0)]), None);
        assert_eq!(slope(&[(1.0, 1.0), (1.0, 5.0)]), None);
    }

    #[test]
    fn the_interval_holds_the_true_slope_as_often_as_it_says() {
        let mut random = fastrand::Rng::with_seed(7);
        let held = |random: &mut fastrand::Rng| {
            let mut noise = || (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
            let points: Vec<(f64, f64)> =
                (0..30).map(|x| (f64::from(x), 2.0 * f64::from(x) + 5.0 * noise())).collect();
            let slope = slope(&points).expect("defined");
            assert!(slope.least <= slope.value && slope.value <= slope.most);
            (slope.least..=slope.most).contains(&2.0)
        };
        let share = (0..400).filter(|_| held(&mut random)).count() as f64 / 400.0;
        assert!((0.91..=0.985).contains(&share), "held in {share} of the runs");
    }

    #[test]
    fn series_share_a_slope_and_no_base() {
        let life = |base: f64| -> Vec<(f64, f64)> {
            (0..10).map(|x| (f64::from(x), base + 4.0 * f64::from(x))).collect()
        };
        let (first, second) = (life(1_000.0), life(50.0));
        let slope = slope_within(&[&first, &second]).expect("defined");
        assert!((slope.value - 4.0).abs() < 1e-9 && slope.samples == 20);
    }
}
