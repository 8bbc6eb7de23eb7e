"""Evaluate all tables of certificates: metrics per noise level, curves, report, plots."""

import pandas as pd

from components.data.prepared import load_description
from components.evaluation import metrics, plots, report
from components.params import Params
from components.tools.files import write_json, write_text
from pipelines import artifacts
from pipelines.cli import run_stage
from pipelines.report_files import load_level, write_page


def run(params: Params) -> None:
    description = load_description(artifacts.DESCRIPTION)
    levels = [load_level(params, sigma, description) for sigma in params.sigmas]
    summaries = {level.key: level.summary for level in levels}
    largest = [metrics.largest_radius_of(level.identity) for level in levels]
    curves = [metrics.curve(one.table, one.sigma, end) for one, end in zip(levels, largest, strict=True)]
    all_curves = pd.concat(curves)
    all_ecdfs = pd.concat([metrics.p_lower_ecdf(level.table, level.sigma) for level in levels])

    write_json(artifacts.METRICS, summaries)
    write_text(artifacts.CURVES, all_curves.to_csv(index=False))
    write_text(artifacts.P_LOWER_ECDF, all_ecdfs.to_csv(index=False))
    artifacts.REPORT.mkdir(parents=True, exist_ok=True)
    name = params.register.name
    accuracy = plots.certified_accuracy_spec(all_curves, artifacts.PLOT_TEMPLATE, f"Certified accuracy of {name}")
    p_lower = plots.p_lower_spec(all_ecdfs, artifacts.P_LOWER_TEMPLATE, f"Distribution of p_lower of {name}")
    pictures = [artifacts.REPORT / "certified_accuracy.png", artifacts.REPORT / "p_lower_ecdf.png"]
    for spec, png in zip((accuracy, p_lower), pictures, strict=True):
        plots.render_png(spec, png)
    page = report.markdown_report(summaries, name, description.source, *(png.name for png in pictures))
    write_text(artifacts.REPORT / "report.md", page)
    write_page(params, description, levels, artifacts.REPORT_PAGE)
    print(report.text_summary(summaries))
    print(f"report: {artifacts.REPORT_PAGE}")


if __name__ == "__main__":
    run_stage(run, __doc__)
