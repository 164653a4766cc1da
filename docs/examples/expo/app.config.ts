// Links to the page of the mail open the app. The site shows that it agrees with two files: ../app-links.
import type { ExpoConfig } from '@expo/config-types'

const config: ExpoConfig = {
	name: 'Example',
	slug: 'example',
	ios: {
		bundleIdentifier: 'com.example.app',
		associatedDomains: ['applinks:app.example.com'],
	},
	android: {
		package: 'com.example.app',
		intentFilters: [
			{
				action: 'VIEW',
				autoVerify: true,
				data: [{ scheme: 'https', host: 'app.example.com', pathPrefix: '/reset-password' }],
				category: ['BROWSABLE', 'DEFAULT'],
			},
		],
	},
}

export default config
