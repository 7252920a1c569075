"""The one inference path: a pure step, a session around it, and tracking of whole videos."""
