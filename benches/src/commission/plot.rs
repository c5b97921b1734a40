//! Pictures of a run, drawn from its report: machines by status, machines per minute, CPU and memory; each by time, as an SVG that is
//! legible on light and dark paper.

use std::error::Error;

use plotters::{
    coord::{Shift, types::RangedCoordf64},
    prelude::*,
};
use serde_json::Value;

use super::{
    goodput::Curve,
    table::{number, text},
};
use crate::yard::{Trouble, trouble};

const WIDTH: u32 = 960;
const HEIGHT: u32 = 440;
/// Room for the caption below a picture.
const FOOT: u32 = 48;
/// Windows of the rates that are drawn, in seconds.
const WINDOW: f64 = 10.0;
const CPU_WINDOW: f64 = 5.0;

const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xff);
const INK: RGBColor = RGBColor(0x1f, 0x23, 0x28);
/// Of middle lightness, so that they stand out from both papers.
const BLUE: RGBColor = RGBColor(0x2f, 0x7f, 0xd1);
const GREEN: RGBColor = RGBColor(0x2e, 0x9e, 0x5b);
const AMBER: RGBColor = RGBColor(0xc7, 0x77, 0x00);
const RED: RGBColor = RGBColor(0xd1, 0x49, 0x5b);
const GREY: RGBColor = RGBColor(0x8a, 0x93, 0x9c);
const VIOLET: RGBColor = RGBColor(0x8e, 0x6b, 0xd6);

/// A viewer that wants dark paper gets it: a style sheet wins over the colours in the elements.
const DARK: &str = "<style>@media (prefers-color-scheme: dark) { [fill=\"#FFFFFF\"] { fill: #14171b } [fill=\"#1F2328\"] { fill: #e6edf3 } \
    [stroke=\"#1F2328\"] { stroke: #e6edf3 } }</style>";

type Drawn<T> = Result<T, Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// A picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plot {
    /// Its file's name.
    pub name: String,
    pub svg: String,
}

/// One line, or one layer, by time.
struct Series {
    name: String,
    color: RGBColor,
    points: Vec<(f64, f64)>,
    filled: bool,
}

/// A chart of some series over the run's time.
struct Panel {
    title: String,
    unit: &'static str,
    series: Vec<Series>,
    /// Moments with a name: what was killed when.
    marks: Vec<(f64, String)>,
}

/// Draws all pictures of a report.
///
/// # Errors
/// When it holds no timeline, or a picture cannot be drawn.
pub fn plots(report: &Value) -> Result<Vec<Plot>, Trouble> {
    let looks = report["timeline"].as_array().map(Vec::as_slice).unwrap_or_default();
    if looks.len() < 2 {
        return Err(Trouble(
            "the report holds no timeline of two looks or more; run the bench for longer than 2 s".into(),
        ));
    }
    let end = looks.iter().map(|look| number(&look["s"])).fold(0.0, f64::max);
    let about = format!("{} machines, {} racks, {}", report["machines"], report["racks"], text(&report["database"]));
    let marks: Vec<_> = report["kills"]["done"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|k| (number(&k["at_s"]), format!("kill -9 {}", text(&k["what"]))))
        .collect();
    let caption = [
        // It names the seed, too.
        text(&report["command"]).to_owned(),
        format!(
            "{:.0} machines a minute, {} Ready, {} failed, {} stuck; {}",
            number(&report["machines_per_minute"]),
            report["ready"],
            report["failed"],
            report["stuck"],
            text(&report["host"]["words"]),
        ),
    ];
    let panel =
        |title: &str, unit, series| Panel { title: format!("{title}: {about}"), unit, series, marks: marks.clone() };
    let pictures = [
        ("status", vec![panel("Machines by status", "machines", statuses(looks))]),
        ("rate", vec![panel("Machines that became Ready", "machines per minute", rates(report, looks))]),
        (
            "use",
            vec![
                panel("CPU", "cores in use", groups(looks, cpu)),
                panel("Memory", "PSS in MiB", groups(looks, memory)),
            ],
        ),
    ];
    let stem = format!("commission-{}-{}", report["machines"], text(&report["database"]));
    let draw = |(kind, panels): (&str, Vec<Panel>)| {
        let svg = picture(&panels, &caption, end).map_err(|e| trouble("a plot")(e.to_string()))?;
        Ok(Plot { name: format!("{stem}-{kind}.svg"), svg })
    };
    pictures.into_iter().map(draw).collect()
}

/// Layers, each on those below it; the highest first, since what is drawn later lies over it.
fn statuses(looks: &[Value]) -> Vec<Series> {
    const ORDER: [(&str, RGBColor); 4] =
        [("Ready", GREEN), ("Failed commissioning", RED), ("Commissioning", BLUE), ("New", GREY)];
    let layer = |top: usize| {
        let (name, color) = ORDER[top];
        let sum = |look: &Value| -> f64 { ORDER[..=top].iter().map(|(name, _)| number(&look["statuses"][name])).sum() };
        let points = looks.iter().map(|look| (number(&look["s"]), sum(look))).collect();
        Series { name: name.to_owned(), color, points, filled: true }
    };
    let seen = |name: &str| looks.iter().any(|look| number(&look["statuses"][name]) > 0.0);
    (0..ORDER.len()).rev().filter(|top| seen(ORDER[*top].0)).map(layer).collect()
}

fn rates(report: &Value, looks: &[Value]) -> Vec<Series> {
    let mut curve = Curve::default();
    curve.add(0.0, 0);
    for look in looks {
        curve.add(number(&look["s"]), look["statuses"]["Ready"].as_u64().unwrap_or(0));
    }
    let seconds = || looks.iter().map(|look| number(&look["s"]));
    let rate = seconds().map(|s| (s, curve.rate(s, WINDOW.min(s.max(1.0)))));
    let mean = number(&report["machines_per_minute"]);
    vec![
        Series { name: format!("in the last {WINDOW} s"), color: BLUE, points: rate.collect(), filled: false },
        Series {
            name: "over the run".into(),
            color: AMBER,
            points: seconds().map(|s| (s, mean)).collect(),
            filled: false,
        },
    ]
}

/// One line for each group of processes.
fn groups(looks: &[Value], points: impl Fn(&[Value], &str) -> Vec<(f64, f64)>) -> Vec<Series> {
    let colors = [("region", BLUE), ("racks", GREEN), ("fleet", GREY), ("database", VIOLET)];
    let present = colors.into_iter().filter(|(group, _)| looks.iter().any(|look| !look["pss_bytes"][group].is_null()));
    let series = |(group, color): (&str, RGBColor)| Series {
        name: group.to_owned(),
        color,
        points: points(looks, group),
        filled: false,
    };
    present.map(series).collect()
}

/// Cores that a group used in the window before each look.
fn cpu(looks: &[Value], group: &str) -> Vec<(f64, f64)> {
    let at = |look: &Value| (number(&look["s"]), number(&look["cpu_seconds"][group]));
    let points = looks.iter().enumerate().filter_map(|(i, look)| {
        let (s, seconds) = at(look);
        let mut earlier = looks.get(..i)?.iter().map(at);
        let (from, before) = earlier.rfind(|(t, _)| s - t >= CPU_WINDOW).unwrap_or((0.0, 0.0));
        (s > from).then(|| (s, (seconds - before) / (s - from)))
    });
    points.collect()
}

fn memory(looks: &[Value], group: &str) -> Vec<(f64, f64)> {
    looks.iter().map(|look| (number(&look["s"]), number(&look["pss_bytes"][group]) / 1_048_576.0)).collect()
}

/// Panels one below the other, and the caption.
fn picture(panels: &[Panel], caption: &[String], end: f64) -> Drawn<String> {
    let mut svg = String::new();
    let rows = u32::try_from(panels.len())?;
    let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT * rows + FOOT)).into_drawing_area();
    root.fill(&PAPER)?;
    let (body, foot) = root.split_vertically(i32::try_from(HEIGHT * rows)?);
    for (area, panel) in body.split_evenly((panels.len(), 1)).iter().zip(panels) {
        chart(area, panel, end)?;
    }
    for (row, line) in (0..).zip(caption) {
        foot.draw(&Text::new(line.clone(), (14, 4 + row * 18), font(12)))?;
    }
    root.present()?;
    drop((body, foot, root));
    Ok(match svg.split_once('>') {
        // Behind the opening of the root element.
        Some((open, rest)) => format!("{open}>\n{DARK}{rest}"),
        None => svg,
    })
}

fn font(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

fn chart(area: &Area<'_>, panel: &Panel, end: f64) -> Drawn<()> {
    let highest = panel.series.iter().flat_map(|s| &s.points).map(|(_, y)| *y).fold(0.0, f64::max);
    let top = if highest > 0.0 { highest * 1.08 } else { 1.0 };
    let mut chart: Chart<'_, '_> = ChartBuilder::on(area)
        .caption(&panel.title, font(17))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    let label = |value: &f64| if top < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") };
    chart
        .configure_mesh()
        .x_desc("seconds since the first commissioning was asked for")
        .y_desc(panel.unit)
        .axis_desc_style(font(14))
        .label_style(font(13))
        .axis_style(INK)
        .bold_line_style(INK.mix(0.15))
        .light_line_style(INK.mix(0.0))
        .x_label_formatter(&|s: &f64| format!("{s:.0}"))
        .y_label_formatter(&label)
        .draw()?;
    for series in &panel.series {
        let color = series.color;
        let points = series.points.iter().copied();
        let drawn = if series.filled {
            chart.draw_series(AreaSeries::new(points, 0.0, color))?
        } else {
            chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?
        };
        drawn.label(&series.name).legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], color.filled()));
    }
    for (second, name) in &panel.marks {
        let line = [(*second, 0.0), (*second, top)];
        chart.draw_series(LineSeries::new(line, INK.stroke_width(1)))?;
        chart.draw_series([Text::new(name.clone(), (*second, top * 0.98), font(12))])?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(PAPER)
        .border_style(INK.mix(0.3))
        .label_font(font(13))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Value {
        let look = |s: u64| {
            let statuses = json!({ "Ready": s * 10, "Commissioning": 50, "New": 350 - s * 10 });
            json!({
                "s": s as f64, "statuses": statuses, "cpu_seconds": { "region": s as f64 * 0.5, "racks": s as f64 * 0.3 },
                "pss_bytes": { "region": 50 << 20, "racks": 30 << 20 },
            })
        };
        json!({
            "machines": 400, "racks": 2, "database": "sqlite", "seed": "7", "command": "hostler bench commission --machines 400 --seed 7 <x>",
            "machines_per_minute": 600.0, "ready": 400, "failed": 0, "stuck": 0, "host": { "words": "2 cores" },
            "timeline": (1..=35).map(look).collect::<Vec<_>>(), "kills": { "done": [{ "what": "region", "at_s": 12.0 }] },
        })
    }

    #[test]
    fn pictures_name_what_they_show_its_units_and_the_command() {
        let drawn = plots(&report()).unwrap();
        let names: Vec<_> = drawn.iter().map(|plot| plot.name.as_str()).collect();
        let stem = "commission-400-sqlite";
        assert_eq!(names, ["status", "rate", "use"].map(|kind| format!("{stem}-{kind}.svg")));
        let said = [("machines", "Commissioning"), ("machines per minute", "over the run"), ("PSS in MiB", "racks")];
        for (plot, (unit, series)) in drawn.iter().zip(said) {
            for part in
                [unit, series, "seconds since", "--seed 7", "&lt;x&gt;", "kill -9 region", "prefers-color-scheme: dark"]
            {
                assert!(plot.svg.contains(part), "{}: {part} is missing", plot.name);
            }
            assert_eq!(plot.svg.matches("seed").count(), 1, "{}: said once is enough", plot.name);
            let whole = roxmltree::Document::parse(&plot.svg);
            assert!(whole.is_ok(), "{}: {:?}", plot.name, whole.err());
            // The colours that dark paper turns round are written as the style sheet expects them.
            assert!(plot.svg.contains("fill=\"#FFFFFF\"") && plot.svg.contains("fill=\"#1F2328\""), "{}", plot.name);
        }
    }

    #[test]
    fn cpu_is_cores_in_use_and_layers_add_up() {
        let report = report();
        let looks = report["timeline"].as_array().unwrap();
        let cores = cpu(looks, "region");
        assert!(cores.iter().all(|(_, cores)| (cores - 0.5).abs() < 1e-9), "{cores:?}");
        let layers = statuses(looks);
        let tops: Vec<_> = layers.iter().map(|layer| (layer.name.as_str(), layer.points[9].1)).collect();
        assert_eq!(tops, [("New", 400.0), ("Commissioning", 150.0), ("Ready", 100.0)]);
    }

    #[test]
    fn a_report_without_a_timeline_is_refused() {
        assert!(plots(&json!({})).unwrap_err().0.contains("no timeline"));
    }
}
