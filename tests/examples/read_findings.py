"""Findings in a script or a notebook: python tests/examples/read_findings.py RUN.

Every part below a `# %%` is a cell for editors that know them.
"""

# %% what was found
import sys

import agent

findings = agent.load(sys.argv[1] if len(sys.argv) > 1 else "tests/runs/organism")
print(findings)  # in a notebook, `findings` alone shows sentences, ranked table and cautions
for sentence in findings.sentences:
    print("-", sentence)

# %% numbers: every field of findings.json is an attribute
print(
    f"D {findings.change.estimate:.3f}, residual {findings.residual.estimate:.3f}" if findings.residual else f"D {findings.change.estimate}"
)

# %% tables: pandas where it is installed, else lists of dicts
table = findings.parameters
print(table[["rank", "name", "verdict", "share", "share_low", "share_high", "onset"]].to_string(index=False))

# %% a table of one's own: how far each accepted parameter has moved at the last step
courses = findings.courses
for name, course in courses.groupby("parameter", sort=False):
    print(f"{name[:60]}: {course['estimate'].iloc[0]:.2f} -> {course['estimate'].iloc[-1]:.2f}")

# %% figures: Plotly objects, to be shown, changed or saved
figure = findings.figures["transition"]
figure.update_layout(title="My title", template="plotly_white")
print(len(figure.data), "traces in", list(findings.figures))
