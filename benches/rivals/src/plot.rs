//! The plot: bars, on a scale of powers of ten.

use std::error::Error;

use plotters::prelude::*;

/// What of each contender is drawn.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) bars: Vec<(String, f64)>,
}

const WIDTH: u32 = 860;
const ROW: u32 = 26;
const HEAD: u32 = 46;
const LABELS: i32 = 270;
const OURS: RGBColor = RGBColor(0xc2, 0x41, 0x0c);
const THEIRS: RGBColor = RGBColor(0x64, 0x74, 0x8b);

/// Draws the panels, one below the other.
pub(crate) fn draw(path: &str, panels: &[Panel]) -> Result<(), Box<dyn Error>> {
    let height: usize = panels.iter().map(|panel| HEAD as usize + panel.bars.len() * ROW as usize).sum();
    let area = SVGBackend::new(path, (WIDTH, u32::try_from(height)? + 16)).into_drawing_area();
    area.fill(&WHITE)?;
    let title = ("sans-serif", 18).into_font().color(&BLACK);
    let text = ("sans-serif", 14).into_font().color(&BLACK);
    let mut top = 0;
    for panel in panels {
        area.draw_text(panel.title, &title, (12, top + 16))?;
        top += i32::try_from(HEAD)?;
        let values = || panel.bars.iter().map(|(_, value)| value.log10());
        let least = values().fold(f64::INFINITY, f64::min).floor();
        let most = values().fold(f64::NEG_INFINITY, f64::max);
        let room = f64::from(i32::try_from(WIDTH)? - LABELS - 110);
        for (label, value) in &panel.bars {
            #[expect(clippy::cast_possible_truncation, reason = "pixels")]
            let length = ((value.log10() - least) / (most - least) * room).max(2.0) as i32;
            let color = if label.starts_with("shmq") { OURS } else { THEIRS };
            let bar = [(LABELS, top + 3), (LABELS + length, top + i32::try_from(ROW)? - 5)];
            area.draw(&Rectangle::new(bar, color.filled()))?;
            area.draw_text(label, &text, (12, top + 5))?;
            let digits = if *value >= 10.0 { 1 } else { 2 };
            let figure = format!("{value:.digits$} {}", panel.unit);
            area.draw_text(&figure, &text, (LABELS + length + 8, top + 5))?;
            top += i32::try_from(ROW)?;
        }
    }
    area.present()?;
    Ok(())
}
