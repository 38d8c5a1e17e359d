//! Plots in SVG.

use std::path::Path;

use plotters::prelude::*;

use super::Plot;
use crate::Failure;
use crate::stats::short;

const SIZE: (u32, u32) = (760, 380);
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(90, 90, 90),
];

/// Draws a plot into a directory.
pub(super) fn draw(plot: &Plot, directory: &Path) -> Result<(), Failure> {
    let path = directory.join(format!("{}.svg", plot.file));
    let area = SVGBackend::new(&path, SIZE).into_drawing_area();
    let points = || plot.lines.iter().flat_map(|(_, points)| points);
    let most = |figure: fn(&(f64, f64)) -> f64| points().map(figure).fold(0.0, f64::max);
    let first = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let (last, top) = (most(|point| point.0), most(|point| point.1));
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(&plot.title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d(first..last.max(first + 1e-9), 0.0..top.max(1e-9) * 1.1)?;
    chart
        .configure_mesh()
        .x_desc(&plot.across)
        .y_desc(&plot.up)
        .x_label_formatter(&|value| short(*value).trim_end_matches(".00").to_owned())
        .y_label_formatter(&|value| short(*value))
        .draw()?;
    for ((name, points), colour) in plot.lines.iter().zip(COLOURS.iter().cycle()) {
        let colour = *colour;
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                colour.stroke_width(2),
            ))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        let dots = points.iter().map(|at| Circle::new(*at, 3, colour.filled()));
        chart.draw_series(dots)?;
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}
