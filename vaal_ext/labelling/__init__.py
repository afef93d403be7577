"""Labels that people give: a project's folder, its queries, their answers."""
