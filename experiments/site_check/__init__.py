"""What a site learns of its own data before it joins. Nothing here leaves the site."""
